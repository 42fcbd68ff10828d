//! What a rule grants, and what a request asks for.

/// What a request wants to do. The server finds it from the verb and, for a write, from whether the object exists.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Operation {
    /// GET, and HEAD.
    Read,
    /// LIST, or GET with `list=true`.
    List,
    /// SCAN, or GET with `scan=true`.
    Scan,
    /// POST or PUT to an object that does not exist.
    Create,
    /// POST or PUT otherwise.
    Update,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
    /// The help text of a path.
    Help,
}

impl Operation {
    /// Whether the request lists: such a request also matches rules written without its trailing slash.
    pub const fn is_listing(self) -> bool {
        matches!(self, Self::List | Self::Scan)
    }
}

/// A set of capabilities.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Capabilities(u16);

/// Every capability word with its bit, in alphabetical order, which is the order they are reported in.
const WORDS: [(&str, Capabilities); 9] = [
    ("create", Capabilities::CREATE),
    ("delete", Capabilities::DELETE),
    ("deny", Capabilities::DENY),
    ("list", Capabilities::LIST),
    ("patch", Capabilities::PATCH),
    ("read", Capabilities::READ),
    ("scan", Capabilities::SCAN),
    ("sudo", Capabilities::SUDO),
    ("update", Capabilities::UPDATE),
];

impl Capabilities {
    /// No capability at all, which denies like [`Capabilities::DENY`] but gives way when merged.
    pub const NONE: Self = Self(0);
    /// Refuses everything, also what another policy grants on the same path.
    pub const DENY: Self = Self(1);
    /// Write something new.
    pub const CREATE: Self = Self(1 << 1);
    /// Read.
    pub const READ: Self = Self(1 << 2);
    /// Write over something.
    pub const UPDATE: Self = Self(1 << 3);
    /// Delete.
    pub const DELETE: Self = Self(1 << 4);
    /// List one level.
    pub const LIST: Self = Self(1 << 5);
    /// Reach root-protected paths.
    pub const SUDO: Self = Self(1 << 6);
    /// Change part of something.
    pub const PATCH: Self = Self(1 << 7);
    /// List all levels.
    pub const SCAN: Self = Self(1 << 8);

    /// The capability called `word` (case counts), or `None`.
    pub fn from_word(word: &str) -> Option<Self> {
        WORDS.iter().find(|(name, _)| *name == word).map(|(_, bit)| *bit)
    }

    /// Both sets together. Does not apply the rule that deny wins.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether the set grants anything: something is in it, and not deny.
    pub const fn grants_any(self) -> bool {
        self.0 != 0 && !self.contains(Self::DENY)
    }

    /// Whether the set lets `operation` through, sudo aside. Help asks for any grant on the path.
    pub const fn allows(self, operation: Operation) -> bool {
        let wanted = match operation {
            Operation::Read => Self::READ,
            Operation::List => Self::LIST,
            Operation::Scan => Self::SCAN,
            Operation::Create => Self::CREATE,
            Operation::Update => Self::UPDATE,
            Operation::Patch => Self::PATCH,
            Operation::Delete => Self::DELETE,
            Operation::Help => return self.grants_any(),
        };
        self.contains(wanted) && !self.contains(Self::DENY)
    }

    /// The words of the set in alphabetical order; `["deny"]` alone when it grants nothing.
    pub fn words(self) -> Vec<&'static str> {
        if !self.grants_any() {
            return vec!["deny"];
        }
        WORDS.iter().filter(|(_, bit)| self.contains(*bit)).map(|(name, _)| *name).collect()
    }

    /// The same with those at the end that came to Vault's API last: as `sys/internal/ui/resultant-acl` shows them.
    pub fn words_latest_last(self) -> Vec<&'static str> {
        let (latest, mut words): (Vec<_>, Vec<_>) =
            self.words().into_iter().partition(|word| matches!(*word, "patch" | "scan"));
        words.extend(latest);
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_has_its_own_word() {
        for (operation, word) in [
            (Operation::Read, "read"),
            (Operation::List, "list"),
            (Operation::Scan, "scan"),
            (Operation::Create, "create"),
            (Operation::Update, "update"),
            (Operation::Patch, "patch"),
            (Operation::Delete, "delete"),
        ] {
            for (other, bit) in WORDS {
                assert_eq!(bit.allows(operation), other == word, "{operation:?} with {other}");
            }
            assert!(!Capabilities::DENY.and(Capabilities::from_word(word).unwrap()).allows(operation));
        }
        assert_eq!(Capabilities::from_word("Read"), None);
        assert!(Capabilities::SUDO.allows(Operation::Help));
        assert!(!Capabilities::NONE.allows(Operation::Help));
        assert!(!Capabilities::DENY.and(Capabilities::READ).allows(Operation::Help));
    }

    #[test]
    fn words_are_sorted_and_nothing_is_deny() {
        let set = Capabilities::UPDATE.and(Capabilities::CREATE).and(Capabilities::SUDO).and(Capabilities::PATCH);
        assert_eq!(set.words(), ["create", "patch", "sudo", "update"]);
        assert_eq!(set.words_latest_last(), ["create", "sudo", "update", "patch"]);
        assert_eq!(Capabilities::NONE.words(), ["deny"]);
        assert_eq!(Capabilities::DENY.and(Capabilities::READ).words(), ["deny"]);
    }
}
