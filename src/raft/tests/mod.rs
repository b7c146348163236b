//! Raft as a whole: scripts that a person can read, and random runs that nobody could write.

mod cluster;
mod model;
mod random;
mod removed;
mod safety;
mod script;
mod trace;

/// Runs every script. `UPDATE_GOLDENFILES=1` writes what came out; read the difference before you keep it.
#[test]
fn scripts() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/raft/scripts");
    let mut paths: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 342, "only {} scripts in {directory}", paths.len());
    let failed = |path: &std::path::PathBuf| {
        let run = || goldenscript::run(&mut script::Runner::default(), path);
        match std::panic::catch_unwind(run) {
            Ok(Ok(())) => false,
            Ok(Err(error)) => {
                eprintln!("{error}");
                true
            }
            Err(_) => true,
        }
    };
    let failed: Vec<_> = paths.iter().filter(|path| failed(path)).collect();
    assert!(failed.is_empty(), "{failed:?}");
}
