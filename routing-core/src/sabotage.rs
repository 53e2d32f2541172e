//! Mechanisms that a test can disable, to see that their absence is noticed.
//!
//! Without the feature `testing` the question is a constant `false`, and the optimizer leaves nothing of it.

/// One mechanism. Disabled by [`Sabotage::begin`], for the current thread alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "testing"), expect(unreachable_pub, reason = "public with the feature alone"))]
pub enum Sabotage {
    /// Reads heed the tokens of their session.
    Tokens,
    /// A bounded read is kept from a replica whose data may be older.
    StalenessBound,
    /// A permit under a cap is given back.
    PermitsReturn,
    /// A write whose answer was lost is not repeated.
    LostAnswers,
    /// A node on a timeline below the highest accepted one is no candidate.
    Deposal,
    /// A primary counts as proven for the writer lease alone.
    WriterLease,
}

#[cfg(feature = "testing")]
thread_local! {
    static DISABLED: std::cell::Cell<Option<Sabotage>> = const { std::cell::Cell::new(None) };
}

/// Disables a mechanism on this thread for as long as it lives.
#[cfg(feature = "testing")]
#[must_use]
#[derive(Debug)]
pub struct Sabotaged(());

#[cfg(feature = "testing")]
impl Sabotage {
    /// Disables the mechanism on this thread, and no other, until the value is dropped.
    pub fn begin(self) -> Sabotaged {
        DISABLED.set(Some(self));
        Sabotaged(())
    }
}

#[cfg(feature = "testing")]
impl Drop for Sabotaged {
    fn drop(&mut self) {
        DISABLED.set(None);
    }
}

/// Whether a test has disabled the mechanism.
#[inline]
pub(crate) fn disabled(mechanism: Sabotage) -> bool {
    #[cfg(feature = "testing")]
    return DISABLED.get() == Some(mechanism);
    #[cfg(not(feature = "testing"))]
    {
        let _ = mechanism;
        false
    }
}
