//! The HTTP API, for programs. Its wire types are its own: what the library's types look like is not promised to anyone.
//!
//! Each handler describes itself, and the OpenAPI document ([`document`]) is made of these descriptions: what is served and
//! what is described can't drift apart.

mod answer;
mod audit;
mod body;
mod calls;
mod connect_sessions;
mod connections;
mod document;
mod grants;
mod invocations;
mod key;
mod page;
mod prefer;
mod skills;
mod users;

use axum::Router;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::serve::Shared;

pub(crate) use body::without_preamble;
pub(crate) use calls::Calls;

/// The routes of the API.
pub(crate) fn router() -> Router<Shared> {
    described().split_for_parts().0
}

fn described() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(document::outline())
        .routes(routes!(skills::list))
        .routes(routes!(skills::show))
        .routes(routes!(grants::effective))
        .routes(routes!(invocations::list, invocations::create))
        .routes(routes!(invocations::show))
        .routes(routes!(invocations::cancel))
        .routes(routes!(connect_sessions::create))
        .routes(routes!(connect_sessions::show))
        .routes(routes!(connect_sessions::confirm))
        .routes(routes!(connect_sessions::decline))
        .routes(routes!(connections::list))
        .routes(routes!(connections::show, connections::disconnect))
        .routes(routes!(users::list))
        .routes(routes!(grants::list))
        .routes(routes!(audit::list))
        .routes(routes!(document::show))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use clawcoil::clock::SystemClock;
    use clawcoil::host::{Home, Host, init};
    use clawcoil::identity::Recovery;

    use crate::serve::{self, App, Config, Origins, Shared};

    /// The tests of the whole server read the same list.
    const CHECKED_IN: &str = include_str!("../../tests/served/routes.txt");

    /// A server's state, over a new agent in this folder.
    pub(super) async fn app() -> (tempfile::TempDir, Shared) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join("home"));
        init(&home, &Recovery::none(), Arc::new(SystemClock::new())).await.unwrap();
        let host = Arc::new(Host::builder(home).open().await.unwrap());
        let origins = Origins::new("http://127.0.0.1:8418".parse().unwrap(), []);
        (folder, Arc::new(App::new(host, origins, Config::default())))
    }

    #[tokio::test]
    async fn each_address_that_is_served_stands_in_the_list_that_tests_read() {
        let (_folder, app) = app().await;
        let router = serve::router(app);
        // A router tells of its routes in no other way.
        let told = format!("{router:?}");
        let quoted = told.split('"').skip(1).step_by(2);
        let served: BTreeSet<&str> =
            quoted.filter(|text| text.starts_with('/') && !text.contains("__private")).collect();
        assert!(served.contains("/v1/skills") && served.contains("/mcp"), "{told}");
        let checked_in: BTreeSet<&str> = CHECKED_IN.lines().filter(|line| !line.starts_with('#')).collect();
        let lines = served.iter().copied().collect::<Vec<_>>().join("\n");
        assert_eq!(served, checked_in, "write them to cli/tests/served/routes.txt:\n{lines}");
    }
}
