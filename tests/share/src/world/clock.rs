//! Clocks that drift.

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) real: u64,
    pub(super) local: u64,
    /// Parts of a million that it runs fast.
    pub(super) ppm: i64,
}

impl Clock {
    pub(super) fn at(&self, real: u64) -> u64 {
        let passed = i128::from(real.saturating_sub(self.real)) * i128::from(1_000_000 + self.ppm)
            / 1_000_000;
        self.local + passed as u64
    }

    /// The first real time at which it shows at least this.
    pub(super) fn when(&self, local: u64) -> u64 {
        let passed = u128::from(local.saturating_sub(self.local)) * 1_000_000;
        self.real.saturating_add(passed.div_ceil((1_000_000 + self.ppm) as u128) as u64)
    }
}
