//! Receipts: the name of one delivery, as one opaque string.
//!
//! A delivery is (id, token); see [`trine_protocol::queue::Delivery`]. JSON numbers would lose bits of the token in
//! programs that know only doubles, and two numbers would invite to calculate with them.

/// The receipt of a delivery.
pub fn write(id: u64, token: u64) -> String {
    format!("{id:x}-{token:x}")
}

/// The delivery of a receipt, or None where no delivery ever had such a one.
pub fn read(receipt: &str) -> Option<(u64, u64)> {
    let (id, token) = receipt.split_once('-')?;
    let delivery = (u64::from_str_radix(id, 16).ok()?, u64::from_str_radix(token, 16).ok()?);
    // One spelling only: `+a-0b` would be read as `a-b`.
    (write(delivery.0, delivery.1) == receipt).then_some(delivery)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote_and_nothing_else() {
        for (id, token) in [(0, 0), (1, 42), (u64::MAX, u64::MAX), (7, 1 << 48 | 9)] {
            assert_eq!(read(&write(id, token)), Some((id, token)));
        }
        for receipt in ["", "-", "1", "1-", "-1", "1-2-3", "01-2", "+1-2", "A-1", "g-1", "1-10000000000000000", "é-1"]
        {
            assert_eq!(read(receipt), None, "{receipt}");
        }
    }
}
