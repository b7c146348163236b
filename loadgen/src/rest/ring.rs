//! Which address a message goes to: consistent hashing, as the old callers do it among themselves.
//!
//! Each address has [`POINTS`] points on a circle of 64-bit numbers, and a message belongs to the first point at or after its own
//! hash. An address that is taken away leaves the messages of the others where they are. It is the callers' own affair:
//! the cluster knows nothing of this ring, and takes any message at any address.

use xxhash_rust::xxh3::xxh3_64;

/// Points of each address: with so many, three addresses have a third each, give or take a tenth.
const POINTS: usize = 128;

/// Where the addresses lie.
#[derive(Debug)]
pub(super) struct Ring {
    /// Position, and the place of the address.
    points: Vec<(u64, usize)>,
}

impl Ring {
    pub(super) fn new<'a>(addresses: impl Iterator<Item = &'a str>) -> Self {
        let mut points: Vec<(u64, usize)> = addresses
            .enumerate()
            .flat_map(|(place, address)| {
                (0..POINTS).map(move |point| (xxh3_64(format!("{address}#{point}").as_bytes()), place))
            })
            .collect();
        points.sort_unstable();
        Self { points }
    }

    /// The place of the address that a message belongs to.
    pub(super) fn place(&self, message: &str) -> usize {
        let position = xxh3_64(message.as_bytes());
        let next = self.points.partition_point(|(point, _)| *point < position);
        self.points[next % self.points.len()].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADDRESSES: [&str; 3] = ["127.0.0.1:8000", "127.0.0.1:8001", "127.0.0.1:8002"];

    fn places(addresses: &[&str]) -> Vec<usize> {
        let ring = Ring::new(addresses.iter().copied());
        (0..30_000).map(|number| ring.place(&format!("message {number}"))).collect()
    }

    #[test]
    fn every_address_has_its_share() {
        let places = places(&ADDRESSES);
        for place in 0..3 {
            let share = places.iter().filter(|other| **other == place).count();
            assert!((8_000..12_000).contains(&share), "{place}: {share}");
        }
    }

    #[test]
    fn an_address_that_goes_away_moves_only_its_own_messages() {
        for (before, after) in places(&ADDRESSES).into_iter().zip(places(&ADDRESSES[..2])) {
            assert!(before == after || before == 2, "{before} became {after}");
        }
    }
}
