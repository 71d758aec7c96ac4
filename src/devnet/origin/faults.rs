//! The state of the switches that make the seller misbehave.

/// When to cut the connection of a payment instead of responding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lose {
    /// Before the payment is checked: nothing is registered.
    BeforeRegistering,
    /// After it was checked, and registered if it was valid.
    AfterRegistering,
}

/// The state of the switches.
pub(super) struct Faults {
    pub(super) lose_next: Option<Lose>,
    pub(super) notices: bool,
    pub(super) out_of_gas_money: bool,
}

impl Default for Faults {
    fn default() -> Self {
        Self { lose_next: None, notices: true, out_of_gas_money: false }
    }
}
