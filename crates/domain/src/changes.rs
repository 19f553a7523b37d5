//! What a change of settings is about: the word by which every node learns what it must read again.

/// The kind of thing that changed in an org.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A key was made, changed or revoked.
    Keys,
    /// The org itself: its name, plan or retention.
    Org,
    /// The org's own prices.
    Prices,
    /// Who is a member of the org, in which role.
    Members,
    /// The org's workspaces.
    Workspaces,
    /// A person's account or sessions; what stands for the org is the person's id.
    People,
}

impl Topic {
    /// Every topic.
    pub const EVERY: [Self; 6] =
        [Self::Keys, Self::Org, Self::Prices, Self::Members, Self::Workspaces, Self::People];

    /// The name at rest.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Org => "org",
            Self::Prices => "prices",
            Self::Members => "members",
            Self::Workspaces => "workspaces",
            Self::People => "people",
        }
    }

    /// Reads a name; `None` for one of a newer program.
    pub fn parse(text: &str) -> Option<Self> {
        Self::EVERY.into_iter().find(|topic| topic.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        assert!(Topic::EVERY.iter().all(|topic| Topic::parse(topic.as_str()) == Some(*topic)));
        assert_eq!(Topic::parse("weather"), None);
    }
}
