//! Every scenario of the pages in Chromium, with pictures in `target/prove/pictures`.

use anyhow::Result;

use crate::run::{command, root, run};

pub(super) fn prove() -> Result<()> {
    let pictures = root().join("target/prove/pictures");
    let mut tests = command("cargo", &["test", "--workspace", "--test", "browser", "--", "--nocapture"]);
    run(tests.env("CLAWCOIL_PROVE", "1").env("CLAWCOIL_PICTURES", pictures))
}
