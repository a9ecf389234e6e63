//! How long to wait before a restart (contract, section 2).

use std::time::Duration;

use crate::config::Policy;

/// `factor * 2^made`, where `made` is the number of consecutive restarts made so far. It never
/// exceeds `--max-backoff` (but is never below one factor), and no count overflows it.
#[must_use]
pub fn delay(policy: &Policy, made: u64) -> Duration {
    let factor = policy.backoff_factor;
    // A factor is at most 1e9 s, less than 2^60 ns: shifted by 64 it still fits 128 bits.
    let doublings = made.min(64);
    let cap = policy.max_backoff.max(factor);
    let nanos = (factor.as_nanos() << doublings).min(cap.as_nanos());
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    match (u64::try_from(seconds), u32::try_from(rest)) {
        (Ok(seconds), Ok(rest)) => Duration::new(seconds, rest),
        _ => cap,
    }
}

/// `delay` and on top of it a random part, from nothing to `jitter * delay`.
#[must_use]
pub fn with_jitter(delay: Duration, jitter: f64, rng: &mut Rng) -> Duration {
    delay + delay.mul_f64(jitter * rng.fraction())
}

/// A small random source (splitmix64), for jitter alone: restarts of a crowd shall not meet.
#[derive(Debug)]
pub struct Rng(u64);

impl Rng {
    /// Equal seeds give equal throws.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// From 0 to just below 1.
    fn fraction(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // The top 32 bits convert without loss.
        f64::from(u32::try_from(z >> 32).unwrap_or(0)) / 4_294_967_296.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::tests::policy;

    fn delays(factor: f64, cap: f64, counts: &[u64]) -> Vec<f64> {
        let policy = Policy {
            backoff_factor: Duration::from_secs_f64(factor),
            max_backoff: Duration::from_secs_f64(cap),
            ..policy()
        };
        counts
            .iter()
            .map(|&made| delay(&policy, made).as_secs_f64())
            .collect()
    }

    #[test]
    fn each_delay_is_twice_the_one_before_up_to_the_cap() {
        let delays_from_one = delays(1.0, 3600.0, &[0, 1, 2, 3, 4, 11, 12, 13]);
        assert_eq!(
            delays_from_one,
            [1.0, 2.0, 4.0, 8.0, 16.0, 2048.0, 3600.0, 3600.0]
        );
        assert_eq!(delays(2.0, 10.0, &[0, 1, 2, 3]), [2.0, 4.0, 8.0, 10.0]);
        assert_eq!(delays(0.25, 3600.0, &[0, 1, 2]), [0.25, 0.5, 1.0]);
    }

    #[test]
    fn no_factor_means_no_delay() {
        assert_eq!(delays(0.0, 3600.0, &[0, 1, 50, u64::MAX]), [0.0; 4]);
    }

    #[test]
    fn the_cap_is_never_below_one_factor() {
        assert_eq!(delays(30.0, 10.0, &[0, 1, 2]), [30.0; 3]);
    }

    #[test]
    fn no_count_overflows() {
        for made in [31, 32, 63, 64, 65, 1 << 20, 1 << 40, u64::MAX] {
            assert_eq!(delays(1e9, 1e9, &[made]), [1e9], "{made}");
            assert_eq!(delays(1e-9, 3600.0, &[made.max(60)]), [3600.0], "{made}");
        }
    }

    #[test]
    fn jitter_stays_in_its_bounds_and_differs() {
        let (second, mut rng) = (Duration::from_secs(1), Rng::new(7));
        let thrown: Vec<_> = (0..1000)
            .map(|_| with_jitter(second, 0.5, &mut rng))
            .collect();
        assert!(
            thrown
                .iter()
                .all(|d| (second..second.mul_f64(1.5)).contains(d))
        );
        let (least, most) = (thrown.iter().min(), thrown.iter().max());
        assert!(least < Some(&second.mul_f64(1.05)) && most > Some(&second.mul_f64(1.45)));
        assert_eq!(with_jitter(second, 0.0, &mut rng), second);
        let two_boxes = [1, 2].map(|seed| with_jitter(second, 1.0, &mut Rng::new(seed)));
        assert_ne!(two_boxes[0], two_boxes[1]);
    }
}
