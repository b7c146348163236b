#!/usr/bin/env bash
# Makes an image that no registry gives us out of Debian's packages, under the very name that it has in Dockerfile or
# docker-compose.yml. For a machine that reaches a Debian mirror but no registry.
#
#   stand_ins.sh IMAGE
#
# What it makes has the label trine.stand-in, and stays: `docker image ls --filter label=trine.stand-in` lists it. It is good
# enough to try our own files with, and no replacement for the original anywhere else: its versions are Debian's (Redis 7.0,
# Prometheus 2.42), and the compiler is a copy of the one on this machine. Needs root and debootstrap.
set -euo pipefail
readonly BASE=trine-stand-in:base

# Whom this machine trusts is trusted in the image, so that what reaches a server here reaches it there.
make_base() {
  docker image inspect "$BASE" >/dev/null 2>&1 && return
  command -v debootstrap >/dev/null || { echo 'debootstrap is not installed'; exit 1; }
  local root
  root=$(mktemp -d)
  # The folder must be open to the users of the image, as `mktemp` makes it for root alone.
  chmod 755 "$root"
  debootstrap --variant=minbase --include=ca-certificates bookworm "$root"
  cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  # Packages that are installed into an image start no service.
  printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
  chmod 755 "$root/usr/sbin/policy-rc.d"
  tar -C "$root" --exclude './var/cache/apt/archives/*.deb' --exclude './var/lib/apt/lists/*' -c . |
    docker import -c 'LABEL trine.stand-in=yes' -c 'CMD ["bash"]' - "$BASE"
  rm -rf "$root"
}

# from_packages IMAGE PACKAGES [LINE...]: the base, packages, and further lines of a Dockerfile.
from_packages() {
  local image=$1 packages=$2
  shift 2
  {
    echo "FROM $BASE"
    echo "RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages && rm -rf /var/lib/apt/lists/*"
    printf '%s\n' "$@"
  } | docker build -t "$image" -
}

rust_from_this_machine() {
  local image=$1 sysroot folder
  sysroot=$(rustc --print sysroot)
  from_packages "$BASE-gcc" 'gcc libc6-dev'
  folder=$(mktemp -d)
  printf 'FROM %s\nCOPY . /usr/local\n' "$BASE-gcc" >"$folder/Dockerfile"
  # The context is the toolchain itself, without its documentation, which is the larger part.
  tar -c -C "$folder" Dockerfile -C "$sysroot" bin lib | docker build -t "$image" -
  rm -rf "$folder"
}

make_base
case $1 in
  debian:*) docker tag "$BASE" "$1" ;;
  rust:*) rust_from_this_machine "$1" ;;
  redis:*) from_packages "$1" redis-server 'WORKDIR /data' 'CMD ["redis-server"]' ;;
  prom/prometheus:*) from_packages "$1" prometheus 'WORKDIR /prometheus' 'ENTRYPOINT ["prometheus"]' ;;
  *) echo "there are no packages for $1"; exit 1 ;;
esac
