//! Which requests of browsers are paid.

/// Which requests of browsers a rule pays. Cross-site requests are never paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Browsers {
    /// None.
    Never,
    /// Pages that the user opens, or reaches from the same site.
    Navigations,
    /// These, and what a page requests from its own origin.
    SameOrigin,
    /// Every request without a cross-site mark.
    Any,
}

impl Browsers {
    /// All values.
    pub const ALL: [Self; 4] = [Self::Never, Self::Navigations, Self::SameOrigin, Self::Any];

    /// The default. Over plain http browsers do not mark which site made a request.
    pub fn usual(is_plain: bool) -> Self {
        if is_plain { Self::Never } else { Self::Navigations }
    }

    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Navigations => "navigations",
            Self::SameOrigin => "same-origin",
            Self::Any => "any",
        }
    }
}
