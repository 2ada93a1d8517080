//! Pages for people: signing in, connecting an account, and the operator's views.
//!
//! Pages are rendered here, from `cli/templates`, and work without scripts. Each answer carries a policy that lets a browser
//! run, load and send nothing that is not from here, and each form a value that another site can't know.
//!
//! [`routes`] is the list of all pages with what each asks of its reader ([`Access`]); a gate before the handler holds to it. A
//! handler takes [`Visitor`] for somebody who is signed in, [`Form`] for what a form brings, and answers with
//! [`Page::render`]; what goes wrong is a [`Trouble`], which becomes a page as well.

mod access;
mod activity;
mod assets;
mod audit;
mod browser;
mod connect;
mod connections;
mod events;
mod form;
mod home;
mod link;
mod moment;
mod oidc;
mod page;
mod policy;
mod sign_in;
mod skills;
mod trouble;
mod words;

use std::sync::Arc;

use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware;
use axum::routing::{MethodRouter, get, post};

use crate::serve::Shared;
use access::{Access, Gate};

pub(crate) use activity::Activity;
pub(crate) use browser::{BrowserSession, Role};
pub(crate) use link::{Link, Links};
pub(crate) use oidc::{CALLBACK, keep_client_secret};

pub(crate) use trouble::Trouble;

/// The largest form, in bytes.
const MAX_FORM: usize = 64 << 10;

/// One thing that browsers may ask for.
struct Route {
    #[cfg_attr(not(test), expect(dead_code, reason = "the handler knows it; tests ask for it"))]
    method: Method,
    path: &'static str,
    access: Access,
    handler: MethodRouter<Shared>,
}

impl Route {
    fn get<T: 'static>(access: Access, path: &'static str, handler: impl Handler<T, Shared>) -> Self {
        Self { method: Method::GET, path, access, handler: get(handler) }
    }

    fn post<T: 'static>(access: Access, path: &'static str, handler: impl Handler<T, Shared>) -> Self {
        Self { method: Method::POST, path, access, handler: post(handler) }
    }
}

/// Everything that browsers may ask for, and what it asks of them.
fn routes() -> Vec<Route> {
    use Access::{Ending, Open, Operator, SignedIn, Staff, User};
    vec![
        Route::get(Open, "/sign-in", sign_in::show),
        Route::get(Open, "/sign-in/provider", oidc::begin),
        Route::get(Open, oidc::CALLBACK, oidc::callback),
        Route::get(Open, "/sign-in/link/{secret}", sign_in::offer),
        Route::post(Open, "/sign-in/link/{secret}", sign_in::accept),
        Route::post(Open, "/sign-out", sign_in::sign_out),
        // The session itself says whose page it is.
        Route::get(Open, "/connect/{session}", connect::show),
        Route::post(Open, "/connect/{session}/continue", connect::go_on),
        Route::post(Open, "/connect/{session}/confirm", connect::confirm),
        Route::post(Open, "/connect/{session}/decline", connect::decline),
        Route::get(Open, "/callback/{provider}", connect::callback),
        Route::get(SignedIn, "/", home::show),
        Route::get(Staff, "/connections", connections::list),
        Route::get(SignedIn, "/connections/{connection}", connections::show),
        Route::get(Ending, "/connections/{connection}/disconnect", connections::ask),
        Route::post(Ending, "/connections/{connection}/disconnect", connections::end),
        Route::get(Staff, "/skills", skills::list),
        Route::get(Staff, "/skills/{skill}", skills::show),
        Route::post(Operator, "/skills/{skill}/approve", skills::approve),
        Route::post(Operator, "/skills/{skill}/reject", skills::reject),
        Route::get(Staff, "/policy", policy::show),
        Route::get(Staff, "/audit", audit::list),
        Route::get(Staff, "/audit/verify", audit::verify),
        Route::get(Staff, "/audit/export", audit::export),
        Route::get(Staff, "/audit/calls/{invocation}", audit::call),
        Route::get(User, "/calls", audit::own),
        Route::get(User, "/calls/{invocation}", audit::own_call),
        Route::get(Staff, "/activity", activity::show),
        Route::get(SignedIn, "/console/events", events::stream),
    ]
}

/// The routes for browsers, each behind its gate.
pub(crate) fn router(app: &Shared) -> Router<Shared> {
    let mut router = Router::new();
    for Route { path, access, handler, .. } in routes() {
        let gate = Gate { app: Arc::clone(app), access };
        router = router.route(path, handler.route_layer(middleware::from_fn_with_state(gate, access::hold)));
    }
    router
        .layer(axum::extract::DefaultBodyLimit::max(MAX_FORM))
        .layer(middleware::from_fn_with_state(Arc::clone(app), page::protect))
        .route("/static/{digest}/{name}", get(assets::serve))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tests of the whole server read the same list.
    const CHECKED_IN: &str = include_str!("../../tests/served/console_routes.txt");

    #[test]
    fn each_route_of_the_console_stands_in_the_list_that_tests_read() {
        let lines = routes().into_iter().map(|route| format!("{} {} {}", route.method, route.path, route.access));
        let lines: Vec<String> = lines.collect();
        let checked_in: Vec<&str> = CHECKED_IN.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines, checked_in, "write them to cli/tests/served/console_routes.txt:\n{}", lines.join("\n"));
    }

    #[test]
    fn what_changes_something_is_for_nobody_who_only_reads() {
        for route in routes().iter().filter(|route| route.method == Method::POST) {
            assert!(route.access == Access::Open || !Role::Auditor.may(route.access), "{}", route.path);
        }
    }
}
