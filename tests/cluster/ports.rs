//! Port ranges that no other test, in this process or in another one, uses at the same time.
//!
//! A cluster at offset `o` listens on five families of ports, `family + o + node`. Two offsets are safe together when
//! their distance is no distance between two families; multiples of ten inside one block of ninety are. A process
//! owns a block while it holds the block's guard port, so that two runs of the tests on one machine keep apart.

use std::net::TcpListener;
use std::sync::{Mutex, OnceLock};

/// First port of each family, for node 1: clients, peers, and the three HTTP addresses.
pub(crate) const FAMILIES: [u16; 5] = [4101, 4201, 7000, 8000, 9000];
/// Nodes that a cluster at one offset may have before it meets the next offset.
const NODES_MAX: u16 = 7;
/// Clusters of one process at the same time.
const OFFSETS_PER_BLOCK: u16 = 9;
/// Port whose holder owns block 0; block `k` has the one `k` above.
const GUARD: u16 = 13_000;

/// Blocks by their first offset. All ports stay below 32,768, where Linux takes the ports of outgoing connections from.
const BLOCKS: [u16; 10] = [10_000, 10_200, 10_400, 10_600, 10_800, 20_000, 20_200, 20_400, 20_600, 20_800];

struct Block {
    first: u16,
    taken: Mutex<Vec<u16>>,
    _guard: TcpListener,
}

fn block() -> &'static Block {
    static BLOCK: OnceLock<Block> = OnceLock::new();
    BLOCK.get_or_init(|| {
        let mut numbered = BLOCKS.iter().zip(GUARD..);
        numbered
            .find_map(|(first, guard)| {
                let listener = TcpListener::bind(("127.0.0.1", guard)).ok()?;
                Some(Block { first: *first, taken: Mutex::new(Vec::new()), _guard: listener })
            })
            .expect("one of ten port blocks is free")
    })
}

/// A port offset that is ours until it is dropped.
#[derive(Debug)]
pub(crate) struct Offset(u16);

impl Offset {
    /// Takes one whose ports nobody listens on.
    pub(crate) fn take() -> Self {
        let block = block();
        let mut taken = block.taken.lock().expect("nobody panics while it takes an offset");
        let offset = (0..OFFSETS_PER_BLOCK)
            .map(|number| block.first + 10 * number)
            .find(|offset| !taken.contains(offset) && is_free(*offset))
            .expect("at most nine clusters at a time, and their ports free");
        taken.push(offset);
        Self(offset)
    }

    pub(crate) fn get(&self) -> u16 {
        self.0
    }

    /// Whether nobody listens on any of its ports.
    pub(crate) fn is_free(&self) -> bool {
        is_free(self.0)
    }
}

impl Drop for Offset {
    fn drop(&mut self) {
        if let Ok(mut taken) = block().taken.lock() {
            taken.retain(|offset| *offset != self.0);
        }
    }
}

fn is_free(offset: u16) -> bool {
    let ports = FAMILIES.iter().flat_map(|family| (0..NODES_MAX).map(move |node| family + offset + node));
    ports.into_iter().all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok())
}
