//! `docker-compose.yml` as it is written: what every service must have, so that none is added without it. Whether the file
//! works when it is run is another matter, which `tests/compose.sh` tries with a Docker engine.
//!
//! The file's merge keys (`<<`) are followed here as compose does it: what stands in the service itself wins.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use yaml_rust2::{Yaml, YamlLoader};

/// Services that run once and end, so that neither a restart nor a health check would make sense.
const RUN_ONCE: &[&str] = &["load"];
/// Services that are there only where their profile is asked for; everything else is the core.
const PROFILES: &[(&str, &str)] = &[("grafana", "observability"), ("load", "load"), ("prometheus", "observability")];

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn load(text: &str) -> Yaml {
    let mut documents = YamlLoader::load_from_str(text).expect("YAML");
    assert_eq!(documents.len(), 1, "compose reads one document");
    documents.remove(0)
}

/// What stands under a key, there or in what is merged in.
fn at<'a>(yaml: &'a Yaml, key: &str) -> &'a Yaml {
    match &yaml[key] {
        Yaml::BadValue if !yaml["<<"].is_badvalue() => at(&yaml["<<"], key),
        value => value,
    }
}

fn words(yaml: &Yaml) -> Vec<&str> {
    yaml.as_vec().map(|list| list.iter().filter_map(Yaml::as_str).collect()).unwrap_or_default()
}

fn keys(yaml: &Yaml) -> BTreeSet<&str> {
    yaml.as_hash().map(|hash| hash.keys().filter_map(Yaml::as_str).collect()).unwrap_or_default()
}

/// What is wrong with one service, in words.
fn complaints(name: &str, service: &Yaml, volumes: &BTreeSet<&str>) -> Vec<String> {
    let mut wrong = Vec::new();
    let image = at(service, "image").as_str().unwrap_or_default();
    let tag = image.split_once(':').map(|(_, tag)| tag).unwrap_or_default();
    if tag.is_empty() || tag == "latest" || image.contains('$') {
        wrong.push(format!("'{image}' is no image with a literal tag"));
    }
    let once = RUN_ONCE.contains(&name);
    let restart = at(service, "restart").as_str().unwrap_or_default();
    if restart != if once { "no" } else { "unless-stopped" } {
        wrong.push(format!("restart policy '{restart}'"));
    }
    let health = words(&at(service, "healthcheck")["test"]);
    if !once && (health.len() < 2 || !health[0].starts_with("CMD")) {
        wrong.push("no health check".to_owned());
    }
    if !once && at(service, "stop_grace_period").as_str().is_none() {
        wrong.push("no grace period".to_owned());
    }
    for port in words(at(service, "ports")) {
        if !port.starts_with("127.0.0.1:") {
            wrong.push(format!("port {port} is open to the network"));
        }
    }
    for volume in words(at(service, "volumes")) {
        let source = volume.split(':').next().unwrap_or_default();
        // What is not a volume of the list is a file of ours, which nobody in a container may change.
        let ours = source.starts_with("./") && volume.ends_with(":ro");
        if !ours && !volumes.contains(source) {
            wrong.push(format!("volume {volume}"));
        }
    }
    if at(service, "logging")["options"]["max-size"].as_str().is_none() {
        wrong.push("a log without a limit".to_owned());
    }
    wrong
}

#[test]
fn every_service_has_what_it_must_have() {
    let compose = load(&read("docker-compose.yml"));
    let volumes = keys(&compose["volumes"]);
    let services = keys(&compose["services"]);
    assert_eq!(services, BTreeSet::from(["grafana", "load", "node1", "node2", "node3", "prometheus", "redis"]));
    for name in services {
        let service = &compose["services"][name];
        assert_eq!(complaints(name, service, &volumes), [""; 0], "{name}");
        let profile = PROFILES.iter().find(|(known, _)| *known == name).map(|(_, profile)| *profile);
        assert_eq!(words(at(service, "profiles")), Vec::from_iter(profile), "{name}");
    }
}

#[test]
fn version_1_of_the_tool_reads_it_too() {
    let compose = load(&read("docker-compose.yml"));
    // It knows no `name`, and takes a `version` for the wish to read the file by rules without conditions in `depends_on`.
    let top = keys(&compose);
    assert!(top.iter().all(|key| key.starts_with("x-") || ["services", "volumes"].contains(key)), "{top:?}");
}

#[test]
fn redis_writes_to_disk_before_it_answers() {
    let compose = load(&read("docker-compose.yml"));
    let redis = &compose["services"]["redis"];
    let command = words(at(redis, "command"));
    for [flag, value] in [["--appendonly", "yes"], ["--appendfsync", "always"], ["--dir", "/data"]] {
        assert!(command.windows(2).any(|pair| pair == [flag, value]), "{flag} is not {value}: {command:?}");
    }
    assert_eq!(words(at(redis, "volumes")), ["redis:/data"]);
}

#[test]
fn nodes_have_a_volume_and_ports_of_their_own_and_wait_for_redis() {
    let compose = load(&read("docker-compose.yml"));
    let mut ports = BTreeSet::new();
    for (index, name) in ["node1", "node2", "node3"].into_iter().enumerate() {
        let service = &compose["services"][name];
        assert_eq!(words(at(service, "volumes")), [format!("{name}:/var/lib/trine")]);
        let image = at(service, "image").as_str();
        assert_eq!(image, Some(concat!("trine:", env!("CARGO_PKG_VERSION"))), "{name}");
        assert_eq!(words(&at(service, "healthcheck")["test"])[1..3], ["trine", "health"], "{name}");
        assert_eq!(at(service, "depends_on")["redis"]["condition"].as_str(), Some("service_healthy"), "{name}");
        let environment = at(service, "environment");
        let own = format!("{name}:{}", 4101 + index);
        assert_eq!(at(environment, "TRINE_NODE").as_str(), Some(name));
        // A health check that asked another node would find every node well as long as one is.
        assert_eq!(at(environment, "TRINE_ENDPOINTS").as_str(), Some(&own[..]));
        let members = at(environment, "TRINE_MEMBERS").as_str().unwrap_or_default();
        assert!(members.contains(&format!("{name},{own},{name}:{}", 4201 + index)), "{members}");
        for base in [4101, 7000, 8000, 9000] {
            let port = format!("127.0.0.1:{0}:{0}", base + index);
            assert!(words(at(service, "ports")).contains(&port.as_str()), "{name} does not publish {port}");
            ports.insert(port);
        }
    }
    assert_eq!(ports.len(), 12);
    let load = &compose["services"]["load"];
    assert_eq!(keys(at(load, "depends_on")), BTreeSet::from(["node1", "node2", "node3"]));
}

#[test]
fn the_image_has_a_user_and_a_layer_of_dependencies() {
    let text = read("Dockerfile");
    let line = |wanted: &str| {
        text.lines().position(|line| line.starts_with(wanted)).unwrap_or_else(|| panic!("no line '{wanted}'"))
    };
    let last_stage = text.lines().enumerate().filter(|(_, line)| line.starts_with("FROM ")).map(|(at, _)| at).max();
    assert!(last_stage.is_some_and(|stage| line("USER trine") > stage), "the last stage runs as root");
    // What compiles the dependencies stands above every source, and so is not run again for one of them.
    assert!(line("COPY Cargo.toml Cargo.lock") < line("RUN mkdir"));
    for source in ["COPY src ", "COPY protocol ", "COPY loadgen "] {
        assert!(line(source) > line("RUN mkdir"), "{source} is copied before the dependencies are built");
    }
}

#[test]
fn a_service_that_lacks_something_is_found() {
    let good = "{image: 'a:1', restart: unless-stopped, stop_grace_period: 1s, healthcheck: {test: [CMD, x]}, \
                logging: {options: {max-size: 1m}}, ports: ['127.0.0.1:1:1'], volumes: ['v:/v', './f:/f:ro']}";
    let volumes = BTreeSet::from(["v"]);
    let judge = |text: &str| complaints("one", &load(text), &volumes);
    assert_eq!(judge(good), [""; 0]);
    assert_eq!(judge(&format!("{{<<: {good}}}")), [""; 0], "what is merged in counts");
    for (part, instead, wrong) in [
        ("'a:1'", "'a'", "'a' is no image with a literal tag"),
        ("'a:1'", "'a:latest'", "'a:latest' is no image with a literal tag"),
        ("'a:1'", "'a:${TAG}'", "'a:${TAG}' is no image with a literal tag"),
        ("unless-stopped", "'no'", "restart policy 'no'"),
        ("[CMD, x]", "[NONE]", "no health check"),
        ("stop_grace_period: 1s, ", "", "no grace period"),
        ("127.0.0.1:1:1", "1:1", "port 1:1 is open to the network"),
        ("v:/v", "w:/v", "volume w:/v"),
        ("./f:/f:ro", "./f:/f", "volume ./f:/f"),
        ("max-size", "max-file", "a log without a limit"),
    ] {
        assert!(good.contains(part), "{part}");
        assert_eq!(judge(&good.replace(part, instead)), [wrong], "{part}");
    }
}
