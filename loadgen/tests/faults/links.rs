//! The links between the nodes, each way by itself, so that they can be cut: every node names a proxy as its address for peers.
//!
//! Who connects is read off the first bytes, which name the node. A link that is cut takes no connection and ends those that are there; one that is
//! silent keeps them, and lets nothing through.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// How often a link looks whether it is cut.
const LOOK: Duration = Duration::from_millis(20);
/// Bytes in which the name of who connects has to come.
const NAME_WITHIN: usize = 4_096;

/// What a link does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Link {
    Whole = 0,
    Cut = 1,
    Silent = 2,
}

/// The links of a few nodes, by from and to.
#[derive(Clone, Debug)]
pub(crate) struct Links {
    states: Arc<Vec<AtomicU8>>,
    nodes: u16,
}

impl Links {
    /// Whole links; `port(node)` is where the proxy of that node, from 0, listens, and `real(node)` where the node does.
    pub(crate) fn start(nodes: u16, port: impl Fn(u16) -> u16, real: impl Fn(u16) -> u16) -> Self {
        let states = (0..nodes * nodes).map(|_| AtomicU8::new(Link::Whole as u8)).collect();
        let links = Self { states: Arc::new(states), nodes };
        for to in 0..nodes {
            let listener = TcpListener::bind(("127.0.0.1", port(to))).expect("the proxy's port");
            let (links, real) = (links.clone(), real(to));
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let links = links.clone();
                    std::thread::spawn(move || links.carry(stream, to, real));
                }
            });
        }
        links
    }

    /// Changes what the link from one node to another does, both from 0.
    pub(crate) fn set(&self, from: u16, to: u16, link: Link) {
        self.states[usize::from(from * self.nodes + to)].store(link as u8, Ordering::SeqCst);
    }

    /// Makes all of them whole.
    pub(crate) fn mend(&self) {
        self.states.iter().for_each(|state| state.store(Link::Whole as u8, Ordering::SeqCst));
    }

    fn state(&self, from: u16, to: u16) -> u8 {
        self.states[usize::from(from * self.nodes + to)].load(Ordering::SeqCst)
    }

    /// Carries one connection, in both directions: what comes back goes the other link.
    fn carry(&self, mut stream: TcpStream, to: u16, real: u16) -> Option<()> {
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let (mut first, mut length) = (vec![0; NAME_WITHIN], 0);
        let from = loop {
            length += stream.read(&mut first[length..]).ok().filter(|bytes| *bytes > 0)?;
            let named = |node: &u16| {
                let name = format!("node{}", node + 1);
                first[..length].windows(name.len()).any(|bytes| bytes == name.as_bytes())
            };
            if let Some(from) = (0..self.nodes).filter(|node| *node != to).find(named) {
                break from;
            }
        };
        if self.state(from, to) == Link::Cut as u8 {
            return None;
        }
        let mut behind = TcpStream::connect(("127.0.0.1", real)).ok()?;
        behind.write_all(&first[..length]).ok()?;
        let (back, forth) = (behind.try_clone().ok()?, stream.try_clone().ok()?);
        let links = self.clone();
        std::thread::spawn(move || links.pump(back, forth, to, from));
        self.pump(stream, behind, from, to);
        Some(())
    }

    fn pump(&self, mut source: TcpStream, mut target: TcpStream, from: u16, to: u16) {
        let mut bytes = vec![0; 64 * 1024];
        if source.set_read_timeout(Some(LOOK)).is_ok() {
            loop {
                match self.state(from, to) {
                    state if state == Link::Cut as u8 => break,
                    state if state == Link::Silent as u8 => {
                        std::thread::sleep(LOOK);
                        continue;
                    }
                    _ => {}
                }
                match source.read(&mut bytes) {
                    Ok(0) => break,
                    Ok(count) => {
                        if target.write_all(&bytes[..count]).is_err() {
                            break;
                        }
                    }
                    Err(error)
                        if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
                    Err(_) => break,
                }
            }
        }
        let _ = source.shutdown(Shutdown::Both);
        let _ = target.shutdown(Shutdown::Both);
    }
}
