//! The contract of `wit/`, as wasmtime generates it, and the host's side of it.

#![allow(clippy::pedantic, reason = "the macro writes this code")]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "revealing-skill",
    imports: {
        "clawcoil:skill/tokens.get-token": async | trappable,
        "clawcoil:skill/reveal.reveal": async | trappable,
        default: trappable,
    },
    with: { "clawcoil:skill/tokens.token": super::tokens::Token },
    require_store_data_send: true,
});
