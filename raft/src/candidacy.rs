//! How ready a node is to lead.

/// Whether a node is to lead; the later, the rather.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Candidacy {
    /// It must not: it could answer nobody, or is about to be taken away, or to end.
    Barred,
    /// It would rather not, and does where nobody else can: it could answer reads only.
    Reluctant,
    /// As any other.
    Willing,
}

impl Candidacy {
    /// The byte that says so to another node.
    pub(crate) fn encode(self) -> u8 {
        match self {
            Self::Barred => 0,
            Self::Willing => 1,
            Self::Reluctant => 2,
        }
    }

    /// What another node said; `None` if that is none of it.
    pub(crate) fn decode(body: &[u8]) -> Option<Self> {
        [Self::Barred, Self::Reluctant, Self::Willing].into_iter().find(|known| *body == [known.encode()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_what_is_heard() {
        for said in [Candidacy::Barred, Candidacy::Reluctant, Candidacy::Willing] {
            assert_eq!(Candidacy::decode(&[said.encode()]), Some(said));
        }
        assert_eq!(Candidacy::decode(&[3]), None);
        assert_eq!(Candidacy::decode(&[1, 1]), None);
        assert_eq!(Candidacy::decode(&[]), None);
    }
}
