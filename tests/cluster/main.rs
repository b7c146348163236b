//! What Trine promises, asked of real processes: the built binary, started as a user starts it, killed with signals.
//!
//! Each test has its own ports and folders, and all of them take turns: they measure seconds on a machine that may
//! have two cores. Nothing waits by sleeping; every wait looks for something that can be seen and has a deadline.
//!
//! | file | promise |
//! | --- | --- |
//! | `backup` | a backup under load has what was acknowledged before it, and a cluster is made of it; damage is found |
//! | `backlog` | a backlog deeper than the bound on memory lies on disk, comes back after a kill, and leaves no room taken |
//! | `walkthrough` | the REST walk-through from a fresh start; a killed cluster comes back with all it acknowledged |
//! | `hits` | read hits send nothing, end with the bus lease, and are never stale |
//! | `operations` | compare-and-swap, additions, time to live, the right to fill, several keys at once: from every node |
//! | `owner` | a dirty line of a dead node is refused, and back with the node |
//! | `explain` | what a key is on each node and why is told; what a dead node has is given up by a person alone |
//! | `failover` | a leader that dies or freezes under load costs less than three seconds and nothing acknowledged |
//! | `locks` | those who wait are served in order over nodes and leaders; cycles are refused; a holder that overslept is refused by queue and cache |
//! | `membership` | nodes are added, taken out and replaced under load; a lost disk is let in with one command; what is unsafe is refused |
//! | `python` | a client that was written from the contract alone, in another language, gets what the contract says |
//! | `queues` | policies, delays, keys, ids, pushes, hand-offs and partitions hold on every node and over the death of a leader |
//! | `rejoin` | any one node may die; it comes back with everything |
//! | `redis` | values lie in Redis: outside writes are seen by every node, and what is written while Redis is away is there when it is back |
//! | `refusals` | what cannot start says why in one line and writes nothing; bad bytes cost nothing |
//! | `spread` | every node of a calm cluster leads a group |
//! | `shutdown` | SIGTERM drains; a restart goes on; `--fresh` starts over |

mod backlog;
mod backup;
mod cluster;
mod explain;
mod failover;
mod fresh;
mod hits;
mod http;
mod load;
mod locks;
mod membership;
mod near;
mod operations;
mod owner;
mod ports;
mod process;
mod python;
mod queues;
mod redis;
mod refusals;
mod rejoin;
mod shutdown;
mod spread;
mod wait;
mod walkthrough;
