//! The style sheet, the scripts and the icon. Their addresses change with their contents, so browsers keep them.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use clawcoil::id::Digest;

/// A file that is part of the program.
struct Asset {
    name: &'static str,
    media_type: &'static str,
    contents: &'static str,
    digest: String,
}

macro_rules! assets {
    ($($name:literal: $media_type:literal,)*) => {
        static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| vec![$(Asset {
            name: $name,
            media_type: $media_type,
            contents: include_str!(concat!("../../static/", $name)),
            digest: digest_of(include_str!(concat!("../../static/", $name))),
        },)*]);
    };
}

assets! {
    "clawcoil.css": "text/css; charset=utf-8",
    "clawcoil.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}

fn digest_of(contents: &str) -> String {
    Digest::of(contents.as_bytes()).to_string().trim_start_matches("sha256:").chars().take(16).collect()
}

/// The address of a file, for a page.
pub(crate) fn address(name: &str) -> String {
    let asset = ASSETS.iter().find(|asset| asset.name == name);
    asset.map(|asset| format!("/static/{}/{}", asset.digest, asset.name)).unwrap_or_default()
}

/// A file by its address.
pub(super) async fn serve(Path((digest, name)): Path<(String, String)>) -> Response {
    let Some(asset) = ASSETS.iter().find(|asset| asset.name == name && asset.digest == digest) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let headers = [
        (header::CONTENT_TYPE, asset.media_type),
        (header::CACHE_CONTROL, "public, max-age=31536000, immutable"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        // An image may be opened by itself: it runs nothing then.
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'; sandbox"),
    ];
    (headers, asset.contents).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_has_an_address_of_its_own_contents() {
        for asset in ASSETS.iter() {
            assert_eq!(address(asset.name), format!("/static/{}/{}", digest_of(asset.contents), asset.name));
        }
        assert_ne!(digest_of("a"), digest_of("b"));
        assert_eq!(digest_of("a").len(), 16);
    }
}
