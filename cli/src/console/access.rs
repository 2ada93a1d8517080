//! Who may have which page: the one place that decides.
//!
//! Each route says in [`routes`](super::routes) what it asks for; the gate before its handler holds whoever comes to that. What
//! a page shows beyond it (whose connections, which buttons) asks the same [`Role`].

use std::fmt;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use clawcoil::id::Owner;

use super::browser::{BrowserSession, Role, Visitor};
use super::trouble::Trouble;
use crate::serve::{Kind, Problem, Shared};

/// What a page asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Whoever comes: signing in, and pages that prove their reader by themselves.
    Open,
    /// Somebody is signed in; what they see is theirs, or they may see everything.
    SignedIn,
    /// A user: what is only about oneself.
    User,
    /// An operator or an auditor: what is about everybody.
    Staff,
    /// Whoever may end connections: operators all, users their own, auditors none.
    Ending,
    /// An operator: what changes something for everybody.
    Operator,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open => "open",
            Self::SignedIn => "signed-in",
            Self::User => "user",
            Self::Staff => "staff",
            Self::Ending => "ending",
            Self::Operator => "operator",
        })
    }
}

impl Role {
    /// Whether they may have a page that asks for this.
    pub(crate) const fn may(&self, access: Access) -> bool {
        match (access, self) {
            (Access::Open | Access::SignedIn, _)
            | (Access::Staff, Self::Operator | Self::Auditor)
            | (Access::Ending, Self::Operator | Self::User(_))
            | (Access::Operator, Self::Operator)
            | (Access::User, Self::User(_)) => true,
            (Access::Staff | Access::Operator, Self::User(_))
            | (Access::Ending | Access::Operator, Self::Auditor)
            | (Access::User, Self::Operator | Self::Auditor) => false,
        }
    }

    /// Whether they see what belongs to this owner.
    pub(crate) fn sees(&self, owner: &Owner) -> bool {
        match (self, owner) {
            (Self::Operator | Self::Auditor, _) => true,
            (Self::User(user), Owner::User(whose)) => user == whose,
            (Self::User(_), Owner::Agent) => false,
        }
    }

    /// Whether they may end a connection of this owner.
    pub(crate) fn may_end(&self, owner: &Owner) -> bool {
        self.may(Access::Ending) && self.sees(owner)
    }
}

/// What a gate holds people to.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) app: Shared,
    pub(super) access: Access,
}

/// Lets those through who may have the page.
pub(super) async fn hold(State(gate): State<Gate>, mut request: Request, next: Next) -> Result<Response, Trouble> {
    if gate.access != Access::Open {
        let known = BrowserSession::of(&gate.app, request.headers())?.and_then(Visitor::signed_in);
        let visitor = known.ok_or_else(|| Trouble::sign_in(request.method(), request.uri()))?;
        if !visitor.role.may(gate.access) {
            return Err(refused(&visitor.role).into());
        }
        request.extensions_mut().insert(visitor);
    }
    Ok(next.run(request).await)
}

fn refused(role: &Role) -> Problem {
    let text = match role {
        Role::Operator => {
            "This page is for users, about their own accounts. Operators find everything under Connections and Audit."
        }
        Role::Auditor => {
            "You are signed in as an auditor: you see everything and change nothing. An operator can do this."
        }
        Role::User(_) => {
            "This page is for the operators of this host. Your own accounts and calls are on your first page."
        }
    };
    Problem::new(Kind::Forbidden, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user() -> Role {
        Role::User("alice".parse().unwrap())
    }

    #[test]
    fn an_auditor_reads_everything_and_changes_nothing() {
        assert!(Role::Auditor.may(Access::Staff) && Role::Auditor.may(Access::SignedIn));
        assert!(!Role::Auditor.may(Access::Operator) && !Role::Auditor.may(Access::Ending));
        assert!(Role::Auditor.sees(&Owner::Agent) && !Role::Auditor.may_end(&Owner::Agent));
    }

    #[test]
    fn a_user_sees_and_ends_what_is_their_own_alone() {
        let (own, other) = (Owner::User("alice".parse().unwrap()), Owner::User("bob".parse().unwrap()));
        assert!(user().sees(&own) && user().may_end(&own));
        for foreign in [other, Owner::Agent] {
            assert!(!user().sees(&foreign) && !user().may_end(&foreign));
        }
        assert!(!user().may(Access::Staff) && !user().may(Access::Operator));
    }

    #[test]
    fn an_operator_may_do_what_operators_do() {
        for access in [Access::SignedIn, Access::Staff, Access::Ending, Access::Operator] {
            assert!(Role::Operator.may(access), "{access}");
        }
        assert!(Role::Operator.may_end(&Owner::Agent));
    }
}
