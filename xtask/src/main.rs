//! The project's chores: `cargo xtask setup | build-skills | demo | test | bench | prove`.

mod bench;
mod check;
mod demo;
mod prove;
mod run;
mod setup;
mod skills;
mod test_run;

use std::process::ExitCode;

const HELP: &str = "\
cargo xtask <command>

  setup         install what the other commands need: the wasm32-wasip2 target, the packages of tests/node
  build-skills  build the example skills and the guests of the tests, collect them in target/skills
  demo          build everything and run `clawcoil demo`; what follows is handed to it (cargo xtask demo -- --json)
  test          everything a change must pass: the tests last, and a search of all they put out for secrets
  bench         measure, compare with what is to be reached, write target/bench/summary.json
  prove         the tests again with big counts and all outside judges, write target/prove/summary.json; with a name, that
                part alone: counts, browser, api, mcp, first, contract, load
";

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let command = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.skip_while(|argument| argument == "--").collect();
    let done = match command.as_str() {
        "setup" if rest.is_empty() => setup::install(),
        "build-skills" if rest.is_empty() => setup::install().and_then(|()| skills::build()),
        "demo" => demo::demo(&rest),
        "test" if rest.is_empty() => check::test(),
        "bench" => bench::bench(&rest),
        "prove" => prove::prove(&rest),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(())
        }
        _ => {
            eprint!("{HELP}");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask {command}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
