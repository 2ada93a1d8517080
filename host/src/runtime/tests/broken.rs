//! Files that are no skills, however they are broken. What is said about them is held by the golden texts.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::world::*;

#[tokio::test]
async fn a_component_with_a_hundred_thousand_exports_is_refused() {
    let mut wat = String::from(
        "(component (core module $m (func (export \"f\"))) (core instance $i (instantiate $m))
         (func $f (canon lift (core func $i \"f\")))",
    );
    for n in 0..100_000 {
        write!(wat, "(export \"f{n}\" (func $f))").unwrap();
    }
    wat.push(')');
    let message = compile(&wat).await.unwrap_err().to_string();
    assert!(
        message == "the component is no skill that can be listed: it exports more than 256 functions"
            || message.starts_with("the component is not valid: "),
        "{message}"
    );
}

/// The component to whose tool the golden arguments are given.
const MAIL: &str = include_str!("../../../tests/golden/arguments/mail.wat");

proptest! {
    #![proptest_config(ProptestConfig::with_cases(ProptestConfig::default().cases.div_ceil(2)))]

    #[test]
    fn bytes_that_are_no_component_never_panic(tail in proptest::collection::vec(any::<u8>(), 0..200), header: bool) {
        let mut bytes = if header { b"\0asm\x0d\0\x01\0".to_vec() } else { Vec::new() };
        bytes.extend(tail);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        if let Err(error) = runtime.block_on(RUNTIME.compile(bytes)) {
            let text = error.to_string();
            prop_assert!(text.len() < 700 && !text.contains(|c: char| c.is_control()), "{}", text);
        }
    }

    #[test]
    fn a_component_with_a_flipped_byte_never_panics(at: prop::sample::Index, to: u8, cut: prop::sample::Index) {
        let mut bytes = wat::parse_str(MAIL).unwrap();
        let place = at.index(bytes.len());
        bytes[place] = to;
        bytes.truncate(bytes.len().saturating_sub(cut.index(8)));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let _any = runtime.block_on(RUNTIME.compile(bytes));
    }
}
