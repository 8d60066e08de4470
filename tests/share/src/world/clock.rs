//! Clocks that drift.

#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) real: u64,
    pub(super) local: u64,
    /// Parts of a million that it runs fast.
    pub(super) ppm: i32,
}

impl Clock {
    /// How much it shows in a million.
    fn speed(&self) -> u128 {
        1_000_000_u32.saturating_add_signed(self.ppm).into()
    }

    pub(super) fn at(&self, real: u64) -> u64 {
        let passed = u128::from(real.saturating_sub(self.real)) * self.speed() / 1_000_000;
        self.local + passed as u64
    }

    /// The first real time at which it shows at least this.
    pub(super) fn when(&self, local: u64) -> u64 {
        let passed = u128::from(local.saturating_sub(self.local)) * 1_000_000;
        self.real.saturating_add(passed.div_ceil(self.speed()) as u64)
    }
}
