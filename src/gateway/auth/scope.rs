//! What a caller may do, in words that stand in its token.

use std::fmt;

/// One right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Scope {
    /// Read the user's own cart, and carts of sessions whose token the caller has.
    CartRead,
    /// Change them.
    CartWrite,
    /// Both, of any user and session.
    CartAdmin,
    /// Read sessions whose token the caller has, and list the user's own.
    SessionRead,
    /// Create, change and end them.
    SessionWrite,
    /// Both, of any user.
    SessionAdmin,
    /// Read the namespace's keys.
    KeyRead,
    /// Change them.
    KeyWrite,
    /// See the cluster: its nodes, and what goes on.
    ClusterRead,
}

impl Scope {
    /// Every one.
    pub const ALL: [Self; 9] = [
        Self::CartRead,
        Self::CartWrite,
        Self::CartAdmin,
        Self::SessionRead,
        Self::SessionWrite,
        Self::SessionAdmin,
        Self::KeyRead,
        Self::KeyWrite,
        Self::ClusterRead,
    ];

    /// The word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CartRead => "cart:read",
            Self::CartWrite => "cart:write",
            Self::CartAdmin => "cart:admin",
            Self::SessionRead => "session:read",
            Self::SessionWrite => "session:write",
            Self::SessionAdmin => "session:admin",
            Self::KeyRead => "key:read",
            Self::KeyWrite => "key:write",
            Self::ClusterRead => "cluster:read",
        }
    }

    /// What whoever has it may do besides.
    fn implied(self) -> &'static [Self] {
        match self {
            Self::CartAdmin => &[Self::CartRead, Self::CartWrite],
            Self::SessionAdmin => &[Self::SessionRead, Self::SessionWrite],
            _ => &[],
        }
    }

    fn bit(self) -> u32 {
        1 << (self as u8)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Several rights.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u32);

impl Scopes {
    /// Of these words; those that mean nothing here are somebody else's.
    pub fn of_words<'a>(words: impl IntoIterator<Item = &'a str>) -> Self {
        let mut scopes = Self::default();
        for word in words {
            let known = Scope::ALL.into_iter().find(|scope| scope.name() == word);
            if let Some(scope) = known {
                scopes.add(scope);
            }
        }
        scopes
    }

    /// It is among them.
    #[must_use]
    pub fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }

    fn add(&mut self, scope: Scope) {
        self.0 |= scope.bit();
        for implied in scope.implied() {
            self.0 |= implied.bit();
        }
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = Scope::ALL.into_iter().filter(|scope| self.has(*scope));
        f.debug_set().entries(held.map(Scope::name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_gives_its_right_and_what_that_implies_and_no_other() {
        for scope in Scope::ALL {
            let scopes = Scopes::of_words([scope.name()]);
            for other in Scope::ALL {
                let expected = other == scope || scope.implied().contains(&other);
                assert_eq!(scopes.has(other), expected, "{scope} gives {other}");
            }
        }
    }

    #[test]
    fn foreign_words_give_nothing() {
        let scopes = Scopes::of_words(["openid", "", "cart", "cart:*", "CART:READ", "cart:read2"]);
        assert_eq!(scopes, Scopes::default());
    }
}
