//! Counts of a build without metrics: none.

use super::Count;

#[derive(Debug, Default)]
pub(crate) struct Counts(());

#[derive(Debug, Default)]
pub(crate) struct Prepaid(());

#[allow(clippy::inline_always, clippy::unused_self)] // nothing is to be left of it
impl Counts {
    pub(crate) const ARE_KEPT: bool = false;

    #[inline(always)]
    pub(crate) fn shared(&self) -> Self {
        Self(())
    }
    #[inline(always)]
    pub(crate) fn is_shared_with(&self, _: &Self) -> bool {
        true
    }
    #[inline(always)]
    pub(crate) fn move_to(&self, _: Self) {}
    #[inline(always)]
    pub(crate) fn add(&self, _: Count, _: u64) {}
    #[inline(always)]
    pub(crate) fn add_wait(&self, _: Count, _: u64) {}
}

#[allow(clippy::inline_always, clippy::unused_self)]
impl Prepaid {
    #[inline(always)]
    pub(crate) fn add(&self, _: u64) {}
    #[inline(always)]
    pub(crate) fn begin_close(&self) {}
    #[inline(always)]
    pub(crate) fn end_close(&self, _: u64) -> u64 {
        0
    }
}
