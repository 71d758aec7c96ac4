//! Which requests of browsers are paid.

/// Which requests of browsers a rule pays. None of them pays what a page of another site made a browser send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Browsers {
    /// None.
    Never,
    /// Pages that the user opens, or that the same site leads to.
    Navigations,
    /// These, and what a page asks of its own origin.
    SameOrigin,
    /// Every request that bears no mark of another site.
    Any,
}

impl Browsers {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Never, Self::Navigations, Self::SameOrigin, Self::Any];

    /// What a rule says that does not say it. Over plain http browsers do not mark which site made a request.
    pub fn usual(is_plain: bool) -> Self {
        if is_plain { Self::Never } else { Self::Navigations }
    }

    /// As the configuration writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Navigations => "navigations",
            Self::SameOrigin => "same-origin",
            Self::Any => "any",
        }
    }
}
