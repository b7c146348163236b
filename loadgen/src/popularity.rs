//! Which of some names is used how often.

use rand::Rng;
use rand_distr::{Distribution, Zipf};
use rand_xoshiro::Xoshiro256PlusPlus;

use crate::workload::Failure;

/// The most names that a run may have: each costs the generator some hundred bytes, and the cluster more.
pub(crate) const NAMES_MAX: usize = 1_000_000;

/// A choice among some names.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Popularity {
    /// All alike.
    Uniform(usize),
    /// The first is the most popular one, the `k`th is used in proportion to 1 / k^s.
    Zipf(Zipf<f64>),
}

impl Popularity {
    /// Of `names` names, alike or with the exponent of Zipf's law.
    ///
    /// # Errors
    /// Where the exponent is negative or no number, or there are more than [`NAMES_MAX`] names.
    pub(crate) fn new(names: usize, zipf: Option<f64>) -> Result<Self, Failure> {
        let names = names.max(1);
        let wrong = |text: String| Failure { name: "arguments", unknown: false, text };
        if names > NAMES_MAX {
            return Err(wrong(format!("{names} names are more than {NAMES_MAX}")));
        }
        let Some(exponent) = zipf else { return Ok(Self::Uniform(names)) };
        #[expect(clippy::cast_precision_loss, reason = "below NAMES_MAX")]
        let law = Zipf::new(names as f64, exponent).map_err(|error| wrong(format!("--zipf {exponent}: {error}")))?;
        Ok(Self::Zipf(law))
    }

    /// The place of a name, from 0.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a sample is 1 to the number of names")]
    pub(crate) fn pick(&self, random: &mut Xoshiro256PlusPlus) -> usize {
        match self {
            Self::Uniform(names) => random.random_range(0..*names),
            Self::Zipf(law) => law.sample(random) as usize - 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    fn shares(popularity: Popularity) -> [usize; 4] {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(1);
        let mut shares = [0; 4];
        for _ in 0..100_000 {
            shares[popularity.pick(&mut random)] += 1;
        }
        shares
    }

    #[test]
    fn shares_are_as_the_law_says() {
        for share in shares(Popularity::new(4, None).unwrap()) {
            assert!((24_000..26_000).contains(&share), "{share}");
        }
        // 1 + 1/2 + 1/3 + 1/4 = 25/12, so the first has 48 % and the last 12 %.
        let [first, second, third, fourth] = shares(Popularity::new(4, Some(1.0)).unwrap());
        assert!((47_000..49_000).contains(&first) && (23_000..25_000).contains(&second), "{first} {second}");
        assert!((15_000..17_000).contains(&third) && (11_000..13_000).contains(&fourth), "{third} {fourth}");
    }

    #[test]
    fn what_is_no_law_is_refused() {
        assert!(Popularity::new(4, Some(-1.0)).is_err());
        assert!(Popularity::new(4, Some(f64::NAN)).is_err());
        assert!(Popularity::new(NAMES_MAX + 1, None).is_err());
    }
}
