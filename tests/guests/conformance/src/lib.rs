//! The tools that a judge of the Model Context Protocol calls, and one that takes its time.

wit_bindgen::generate!({ path: "wit", world: "guest" });

use std::time::Duration;

use exports::clawcoil::guest_conformance::tools::Guest;

struct Tools;

impl Guest for Tools {
    fn simple_text() -> String {
        "This is a simple text response for testing.".to_owned()
    }

    fn error_handling() -> Result<String, String> {
        Err("This tool intentionally returns an error for testing".to_owned())
    }

    fn streaming_elicitation() -> String {
        "nobody was asked".to_owned()
    }

    fn logging_tool() -> String {
        println!("this is for the operator");
        "nothing was logged to the client".to_owned()
    }

    fn sleep(milliseconds: u32) -> String {
        std::thread::sleep(Duration::from_millis(milliseconds.into()));
        format!("slept for {milliseconds} ms")
    }
}

export!(Tools);
