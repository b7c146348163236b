#!/usr/bin/env bash
# Brings docker-compose.yml up, and holds it to what it promises: every node healthy, the walk-through through the published
# ports, a node restarted, a node killed, and everything still there after `down` and `up`.
#
#   tests/compose.sh [--bootstrap] [--keep]
#
# --bootstrap  makes an image that is neither here nor to be had out of Debian packages: see tests/compose/stand_ins.sh
# --keep       leaves the cluster running
#
# Needs bash, curl, a Docker engine that answers, and docker-compose 1.29 or Docker's compose plugin. Takes the ports of
# docker-compose.yml, and the project name trine-test, whose containers, volumes and network are removed at the end. Ends with
# 0 where all is well, 1 where something is wrong, and 77 where it could not be tried at all.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly PROJECT=trine-test
readonly SKIPPED=77
readonly HEALTHY_SECONDS_MAX=120
readonly NODES=(node1 node2 node3)

bootstrap=0 keep=0
for argument in "$@"; do
  case $argument in
    --bootstrap) bootstrap=1 ;;
    --keep) keep=1 ;;
    *) echo "compose: $argument is no argument: --bootstrap and --keep are" >&2; exit 1 ;;
  esac
done

skip() { echo "compose: skipped, nothing was tried: $*" >&2; exit "$SKIPPED"; }
fail() { echo "compose: $*" >&2; exit 1; }

docker info >/dev/null 2>&1 || skip 'no Docker engine answers'
if docker compose version >/dev/null 2>&1; then tool=(docker compose)
elif docker-compose version >/dev/null 2>&1; then tool=(docker-compose)
else skip 'neither `docker compose` nor `docker-compose` is installed'
fi
compose() { "${tool[@]}" -p "$PROJECT" "$@"; }

# step NAME COMMAND...: runs it and says how long it took; what it printed is shown where it failed.
step() {
  local name=$1 started=$SECONDS output
  shift
  output=$(mktemp)
  # Not in an `if`: bash would then go on after the first command of a function that fails.
  set +e
  (set -e; "$@") >"$output" 2>&1
  local code=$?
  set -e
  if ((code != 0)); then
    ((code != SKIPPED)) || skip "$(tail -n 3 "$output")"
    tail -n 60 "$output" >&2
    rm -f "$output"
    fail "$name FAILED after $((SECONDS - started)) s"
  fi
  rm -f "$output"
  printf 'compose: %-44s %4d s\n' "$name" $((SECONDS - started))
}

# ------------------------------------------------------------------------------------------------ images and ports
# What the cluster cannot be without, and what can be left out.
needed_images() {
  sed -nE 's/^FROM +([^ ]+).*/\1/p' Dockerfile
  image_of redis
}
image_of() { sed -n "/^  $1:/,/^\$/s/^    image: *//p" docker-compose.yml; }

# get IMAGE: it is here already, a registry gives it, or, where that was asked for, Debian's packages do.
get() {
  docker image inspect "$1" >/dev/null 2>&1 && return
  timeout 300 docker pull -q "$1" && return
  ((bootstrap)) && tests/compose/stand_ins.sh "$1"
}

have_images() {
  local image
  for image in $(needed_images); do
    get "$image" || {
      echo "the image $image is neither here nor can it be pulled; --bootstrap makes one out of Debian packages"
      return "$SKIPPED"
    }
  done
}

# A container has a network of its own: that this machine can download crates says nothing of it.
crates_can_be_had() {
  local toolchain
  toolchain=$(sed -nE 's/^FROM +([^ ]+) +AS build$/\1/p' Dockerfile)
  timeout 60 docker run --rm "$toolchain" cargo info -q itoa >/dev/null || {
    echo 'no crate can be downloaded in a container, so no image can be built'
    return "$SKIPPED"
  }
}

published() { sed -nE 's/^ +ports: +\[(.*)\]/\1/p' docker-compose.yml | grep -oE '127\.0\.0\.1:[0-9]+' | cut -d: -f2; }

ports_are_free() {
  local port taken=()
  for port in $(published); do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then taken+=("$port"); fi
  done
  ((${#taken[@]} == 0)) || { echo "ports in use on 127.0.0.1, perhaps by a cluster of this machine: ${taken[*]}"; return 1; }
}

# ------------------------------------------------------------------------------------------------ containers
health() { docker inspect --format '{{.State.Status}} {{.State.Health.Status}}' "$(compose ps -q "$1")" 2>/dev/null || true; }

# healthy SERVICE...: another program's state has no event to wait for, so it is asked every second, and not for ever.
healthy() {
  local service deadline=$((SECONDS + HEALTHY_SECONDS_MAX))
  for service in "$@"; do
    until [[ $(health "$service") == 'running healthy' ]]; do
      if ((SECONDS >= deadline)); then
        echo "$service is '$(health "$service")' after $HEALTHY_SECONDS_MAX s; its last lines:"
        compose logs --tail 20 "$service"
        return 1
      fi
      sleep 1
    done
  done
}

started_at() { docker inspect --format '{{.State.StartedAt}}' "$(compose ps -q "$1")"; }

up() { compose up --build --detach "$@"; }

# ------------------------------------------------------------------------------------------------ requests
# ask STATUS METHOD URL [BODY]: the answer is in `answer`, and its status is what was expected.
ask() {
  local want=$1 method=$2 url=$3 got
  shift 3
  got=$(curl -sS --max-time 15 -X "$method" ${1:+-H 'Content-Type: application/json' -d "$1"} -w '\n%{http_code}' "$url")
  answer=${got%$'\n'*}
  [[ ${got##*$'\n'} == "$want" ]] || { echo "$method $url: ${got##*$'\n'} where $want is right: $answer"; return 1; }
}

# has FIELD...: the last answer has each of these, spelled as JSON without spaces.
has() {
  local field
  for field in "$@"; do
    [[ $answer == *"$field"* ]] || { echo "no $field in: $answer"; return 1; }
  done
}

number() { sed -nE "s/.*\"$1\":([0-9]+).*/\1/p" <<<"$answer"; }

enqueue() { # PORT NODE MESSAGE
  ask 200 POST "http://localhost:$1/enqueue" "{\"message\":\"$3\"}"
  has '"status":"enqueued"' "\"node\":\"$2\"" "\"queue\":\"queue:$2\"" "\"message\":\"$3\"" '"id":'
}

dequeue() { # PORT NODE MESSAGE
  ask 200 GET "http://localhost:$1/dequeue"
  has '"status":"dequeued"' "\"node\":\"$2\"" "\"message\":\"$3\"" '"receipt":' '"deliveries":'
}

acknowledge() { # PORT NODE MESSAGE
  ask 200 POST "http://localhost:$1/ack" "{\"message\":\"$3\"}"
  has '"status":"acknowledged"' "\"node\":\"$2\"" "\"message\":\"$3\""
}

empty() { # PORT NODE
  ask 200 GET "http://localhost:$1/dequeue"
  has '"status":"empty"' "\"node\":\"$2\""
}

acquire() { # STATUS NAME CLIENT SECONDS
  ask "$1" POST http://localhost:9000/lock/acquire "{\"lock_name\":\"$2\",\"client_id\":\"$3\",\"timeout_sec\":$4}"
}

release() { # STATUS NAME CLIENT
  ask "$1" POST http://localhost:9000/lock/release "{\"lock_name\":\"$2\",\"client_id\":\"$3\"}"
}

write() { # KEY DATA
  ask 200 POST http://localhost:7000/cache/write "{\"key\":\"$1\",\"data\":$2}"
  has '"status":"written_local"' '"state":"M"' "\"key\":\"$1\""
}

read_from() { # PORT KEY DATA FIELD...
  ask 200 GET "http://localhost:$1/cache/read?key=$2"
  has "\"data\":$3" "${@:4}"
}

# ------------------------------------------------------------------------------------------------ what is promised
readonly USER='{"name":"Data Node 1","value":42}'

walk_through_of_the_queue() {
  enqueue 8000 node1 'Halo dari node 1'
  enqueue 8001 node2 'Tes dari node 2'
  dequeue 8000 node1 'Halo dari node 1'
  dequeue 8001 node2 'Tes dari node 2'
  empty 8000 node1
  empty 8001 node2
  acknowledge 8000 node1 'Halo dari node 1'
  acknowledge 8001 node2 'Tes dari node 2'
  ask 404 POST http://localhost:8000/ack '{"message":"Halo dari node 1"}'
  has '"detail":'
}

walk_through_of_the_cache() {
  ask 404 GET 'http://localhost:7000/cache/read?key=user:123'
  write user:123 "$USER"
  read_from 7001 user:123 "$USER" '"source":"main_memory"' '"state":"S"'
  read_from 7002 user:123 "$USER" '"source":"main_memory"' '"state":"S"'
  read_from 7001 user:123 "$USER" '"source":"local_cache"' '"state":"S"'
}

walk_through_of_the_lock() {
  ask 200 GET http://localhost:9000/
  has '"node_id":"node1"' '"status":"running"' '"state":"' '"current_term":' '"voted_for":' '"log_length":' \
    '"current_leader":"http://localhost:900'
  acquire 200 demo c1 5
  has '"status":"acquired"' '"lock":"demo"' '"client_id":"c1"' '"fencing_token":' '"expires_in_ms":5000'
  acquire 409 demo c2 5
  has '"detail":'
  release 403 demo c2
  has '"detail":'
  release 200 demo c1
  has '"status":"released"' '"lock":"demo"'
  release 200 demo c1
  has '"status":"not_held"' '"lock":"demo"'
}

redis_keeps_every_write() {
  compose exec -T redis redis-cli SET db:main_memory:user:9 kept | grep -qx OK
  compose exec -T redis redis-cli CONFIG GET append* | tr '\n' ' ' | grep -E 'appendonly yes' | grep -E 'appendfsync always'
}

# The cache's values lie in Redis: what a node wrote is there, and what somebody sets there is what every node reads.
redis_is_main_memory() {
  local port value deadline=$((SECONDS + 10))
  until compose exec -T redis redis-cli GET db:main_memory:user:123 | grep -qxF "$USER"; do
    ((SECONDS < deadline)) || { echo 'the value that was written is not in Redis'; return 1; }
  done
  for value in '{"set":1}' '{"set":2}'; do
    compose exec -T redis redis-cli SET db:main_memory:outside "$value" | grep -qx OK
    for port in 7000 7001 7002; do
      read_from "$port" outside "$value"
    done
  done
}

# What must outlive everything below. The lock's lease is longer than any run of this script.
leave_data() {
  enqueue 8000 node1 'first to outlive'
  enqueue 8000 node1 'second to outlive'
  enqueue 8002 node3 'third to outlive'
  acquire 200 outlives keeper 86400
  number fencing_token >"$token_file"
  [[ -s $token_file ]] || { echo "no token in: $answer"; return 1; }
  write outlives '{"kept":[1,2,3]}'
}

lock_is_held() {
  acquire 409 outlives thief 5
  has "'keeper'"
}

# The value is read from a node that did not write it.
value_is_there() { read_from 7001 outlives '{"kept":[1,2,3]}'; }

node2_restarts() {
  local before
  before=$(started_at node2)
  compose restart node2
  [[ $(started_at node2) != "$before" ]] || { echo 'node2 was not restarted'; return 1; }
  healthy node2
  lock_is_held
  value_is_there
}

node3_is_killed() {
  local before
  before=$(started_at node3)
  compose kill -s KILL node3
  # Two of three are a majority: a takeover takes up to 3 s, within the deadline of one request.
  enqueue 8000 node1 'enqueued while node3 is dead'
  lock_is_held
  # An engine takes a kill by hand for the wish of its user, and its restart policy leaves such a container alone.
  compose up --detach node3
  [[ $(started_at node3) != "$before" ]] || { echo 'node3 was not started again'; return 1; }
  healthy node3
  ask 200 GET 'http://localhost:8002/readyz'
}

# What crashes by itself comes back by itself: the node's process is killed from outside of Docker's commands.
node1_comes_back_by_itself() {
  local before deadline=$((SECONDS + HEALTHY_SECONDS_MAX)) process
  before=$(started_at node1)
  process=$(docker inspect --format '{{.State.Pid}}' "$(compose ps -q node1)")
  [[ -e /proc/$process/exe ]] && kill -KILL "$process"
  until [[ $(started_at node1) != "$before" ]]; do
    ((SECONDS < deadline)) || { echo 'node1 did not come back'; return 1; }
    sleep 1
  done
  healthy node1
}

data_is_there() {
  dequeue 8000 node1 'first to outlive'
  dequeue 8000 node1 'second to outlive'
  dequeue 8000 node1 'enqueued while node3 is dead'
  empty 8000 node1
  dequeue 8002 node3 'third to outlive'
  lock_is_held
  value_is_there
  # The token is still the lock's: who holds it gives the lock back with it, and the next one is greater.
  local token
  token=$(<"$token_file")
  compose exec -T node1 trine lock renew outlives --client keeper --token "$token" --lease-ms 60000
  compose exec -T node1 trine lock release outlives --client keeper --token "$token"
  acquire 200 outlives next 5
  (($(number fencing_token) > token)) || { echo "the token fell from $token: $answer"; return 1; }
  compose exec -T redis redis-cli GET db:main_memory:user:9 | grep -qx kept
}

nodes_are_no_root() {
  local node
  for node in "${NODES[@]}"; do
    [[ $(compose exec -T "$node" id -un) == trine ]] || { echo "$node runs as $(compose exec -T "$node" id -un)"; return 1; }
    [[ $(docker inspect --format '{{.RestartCount}}' "$(compose ps -q "$node")") == 0 ]] || { echo "$node had to be restarted"; return 1; }
  done
}

load_finds_nothing() {
  local work
  for work in queue lock cache; do
    compose run --rm -T load "$work" --clients 8 --duration 3 --verify
  done
}

prometheus_sees_every_node() {
  compose up --detach prometheus
  healthy prometheus
  local node deadline=$((SECONDS + HEALTHY_SECONDS_MAX))
  for node in "${NODES[@]}"; do
    until ask 200 GET "http://localhost:9090/api/v1/query?query=up%7Bnode%3D%22$node%22%7D" && has "\"node\":\"$node\"" ',"1"]'; do
      ((SECONDS < deadline)) || return 1
      sleep 1
    done
  done
}

grafana_is_healthy() {
  compose up --detach grafana
  healthy grafana
}

# ------------------------------------------------------------------------------------------------ the run
token_file=$(mktemp)
touched=0
clean_up() {
  rm -f "$token_file"
  ((touched)) || return 0
  ((keep)) && { echo "compose: the cluster is left running; ${tool[*]} -p $PROJECT down --volumes ends it"; return 0; }
  compose --profile load --profile observability down --volumes --remove-orphans >/dev/null 2>&1 || true
}
trap clean_up EXIT

echo "compose: with $("${tool[@]}" version --short), engine $(docker version --format '{{.Server.Version}}')"
step 'images' have_images
# What an earlier run left would answer in place of a fresh start.
touched=1
compose --profile load --profile observability down --volumes --remove-orphans >/dev/null 2>&1 || true
step 'crates can be had' crates_can_be_had
step 'ports are free' ports_are_free
step 'build' compose build
step 'up' up
step 'every service is healthy' healthy redis "${NODES[@]}"
step 'nodes run as a user' nodes_are_no_root
step 'walk-through of the queue' walk_through_of_the_queue
step 'walk-through of the cache' walk_through_of_the_cache
step 'walk-through of the lock' walk_through_of_the_lock
step 'Redis writes to disk' redis_keeps_every_write
step 'Redis is main memory' redis_is_main_memory
step 'data is left' leave_data
step 'node2 is restarted' node2_restarts
step 'node3 is killed and started' node3_is_killed
if [[ $(id -u) == 0 ]]; then step 'node1 crashes and comes back by itself' node1_comes_back_by_itself
else echo 'compose: node1 crashes: skipped, only root may kill a process of a container'
fi
step 'down, the volumes stay' compose down
step 'up again' up
step 'every service is healthy again' healthy redis "${NODES[@]}"
step 'queue, lock and cache have their data' data_is_there
step 'load, with nothing lost or stale' load_finds_nothing
if get "$(image_of prometheus)" >/dev/null 2>&1; then
  step 'Prometheus sees every node' prometheus_sees_every_node
  if get "$(image_of grafana)" >/dev/null 2>&1; then step 'Grafana is healthy' grafana_is_healthy
  else echo 'compose: Grafana: skipped, its image is neither here nor can it be pulled'
  fi
else echo 'compose: Prometheus and Grafana: skipped, the image of Prometheus is neither here nor can it be pulled'
fi
echo "compose: all: $SECONDS s"
