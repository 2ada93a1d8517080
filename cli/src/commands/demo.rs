//! `clawcoil demo`: the main job once through, with a sandbox in the place of the real provider.
//!
//! Everything goes through the code that the other commands use. Each line of the story is printed from what happened; where
//! something goes otherwise the demo fails.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use clap::Args;
use clawcoil::audit;
use clawcoil::clock::SystemClock;
use clawcoil::host::{self, Home, Host, InvokeError, Outcome};
use clawcoil::id::{AccountAlias, Owner, ProviderId, SkillName, UserId};
use clawcoil::identity::Recovery;
use clawcoil::policy::{NewGrant, Use};
use clawcoil::runtime::{CallError, End, LinkError};
use clawcoil::secret::{AccessToken, ClientSecret};
use clawcoil::vault::{self, ClientRegistration, Connection};
use serde_json::{Value, json};
use url::Url;

use super::callback::Callback;
use super::grant::PermissionsFile;
use super::{agent, connect, provider, skill};
use crate::browser;
use crate::exit::Failure;
use crate::output::{Output, printable};
use crate::sandbox::{self, Sandbox};
use crate::settings::Settings;

/// How long an access token of the demo's sandbox is good: short enough to see it expire.
const LIFETIME: Duration = Duration::from_secs(3);

/// The provider of the skill that wants to see its key.
const WEBHOOK: &str = "webhook";

/// See the main job done: an agent, an account, a skill, a refusal, a grant, a mail, a refresh
///
/// It needs no account and no internet, and leaves nothing behind: a sandbox on this machine stands in for Google.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo xtask demo                              from the sources: builds all that is needed
  clawcoil demo --skills target/skills
  clawcoil demo --skills target/skills --browser    consent yourself")]
pub(crate) struct Demo {
    /// Where the built example skills are: a folder for each, with skill.toml and the component
    #[arg(long, value_name = "FOLDER", default_value = "target/skills")]
    skills: PathBuf,

    /// Consent yourself, in your browser, instead of watching it done
    #[arg(long)]
    browser: bool,

    /// Keep the agent's folder and say where it is
    #[arg(long)]
    keep: bool,
}

impl Demo {
    pub(crate) async fn run(self, settings: &Settings, output: &Output) -> Result<(), Failure> {
        let folder = tempfile::Builder::new()
            .prefix("clawcoil-demo-")
            .tempdir()
            .map_err(|error| Failure::error(format!("no temporary folder can be made: {error}")))?;
        let mut story = Story { output, lines: Vec::new() };
        story.title("ClawCoil's demo. Everything happens on this machine; a sandbox stands in for Google.")?;
        let told = self.tell(Home::at(folder.path().join("agent")), settings, &mut story).await;
        if self.keep {
            let kept = folder.keep();
            output.note(format_args!("The agent's folder is {}", kept.join("agent").display()));
        }
        told?;
        output.answer(json!({ "story": story.lines }), || {
            "\nGo on with your own agent:\n\
             \x20 clawcoil init\n\
             \x20 clawcoil sandbox                          (in another terminal; or use your client at the real Google)\n\
             \x20 clawcoil provider add google --sandbox"
                .to_owned()
        })
    }

    async fn tell(&self, home: Home, settings: &Settings, story: &mut Story<'_>) -> Result<(), Failure> {
        let sandbox = sandbox::Settings { access_lifetime: LIFETIME, ..sandbox::Settings::default() };
        let client = (sandbox.client_id.clone(), sandbox.client_secret.clone());
        let sandbox = Sandbox::start(sandbox, Arc::new(SystemClock::new()))
            .await
            .map_err(|error| Failure::error(format!("the sandbox can't be served on 127.0.0.1: {error}")))?;

        let made = host::init(&home, &Recovery::none(), agent::clock()).await?;
        let name: String = made.agent.to_string().chars().take(19).collect();
        story.line(format!("An agent was made: {name}…. Its key opens its vault, and nothing else does."))?;

        let google: ProviderId = parsed("google")?;
        let text =
            sandbox::entry(google.as_str(), sandbox.origin()).ok_or_else(|| surprise("the sandbox knows no google"))?;
        provider::install_entry(&home, &google, "the sandbox's entry", &text)?;
        let registration = ClientRegistration { client_id: client.0, client_secret: Some(ClientSecret::new(client.1)) };
        agent::open_vault(&home).await?.put_client(&google, registration).await?;
        let webhook = format!("[provider.{WEBHOOK}]\nkind = \"api-key\"\napi-origins = [\"{}\"]\n", sandbox.origin());
        provider::install_entry(&home, &parsed(WEBHOOK)?, "the entry of the webhook", &webhook)?;
        let host = agent::open_at(home.clone()).await?;
        let entry = provider::known(host.catalogue(), &google)?;
        story.line(format!("The operator stored a client for {}, at {}.", entry.name, sandbox.origin()))?;

        let act = Act { host: &host, sandbox: &sandbox, user: parsed("alice")?, skill: parsed("gmail-send")? };
        let installed = host.registry().add(&built(&self.skills, "gmail-send")?, None)?;
        let scopes = installed.manifest.services.iter().flat_map(|service| service.scopes.clone()).collect();
        let owner = Owner::User(act.user.clone());
        let account: AccountAlias = parsed(AccountAlias::DEFAULT)?;
        let callback = Callback::listen(entry).await?;
        let started = host.connector().start(&owner, &google, &account, &scopes, callback.redirect()).await?;
        let waited = connect::wait(host.connector(), callback, &owner);
        let connected = if self.browser && settings.interactive {
            connect::show_address(&started.url, settings.desktop, story.output);
            waited.await?
        } else {
            let (connected, page) = tokio::join!(waited, browser::consent(&started.url, "ada"));
            page.map_err(|error| Failure::error(format!("the consent in the browser failed: {error:#}")))?;
            connected?
        };
        let connected = host.connector().confirm(connected.id).await?.connection;
        let who =
            connected.account_label.clone().ok_or_else(|| surprise("the sandbox did not say who was connected"))?;
        story.line(format!(
            "Alice consented in a browser: {who} is connected. The tokens are in the vault, encrypted."
        ))?;

        act.refused_at_first(&installed.manifest.version.to_string(), story).await?;
        act.granted(story)?;
        let first = act.mail("The first", &who, story).await?;
        act.expired_and_refreshed(&first, &who, story).await?;
        act.reveal_refused(&self.skills, story).await?;
        act.disconnected(&connected, story).await?;

        let key = host.vault().audit_key();
        let summary = audit::verify(&home.audit(), &key)?;
        let releases = audit::Filter { kind: Some(audit::EventKind::Released), ..audit::Filter::default() };
        let releases = audit::read(&home.audit(), &key, &releases)
            .map_err(|error| surprise(&format!("the audit log can't be read: {error}")))?;
        if releases.len() != act.arrived().await?.len() {
            return Err(surprise("the audit log does not have one entry for each request with a token"));
        }
        story.line(format!(
            "The audit log has {} entries, {} of them for a token on a request. None was changed, none is missing.",
            summary.entries,
            releases.len()
        ))?;
        drop(host);
        sandbox.stop().await.map_err(|error| Failure::error(format!("the sandbox ended badly: {error}")))
    }
}

/// The part of the story in which the skill acts.
struct Act<'a> {
    host: &'a Host,
    sandbox: &'a Sandbox,
    user: UserId,
    skill: SkillName,
}

impl Act<'_> {
    async fn invoke(&self, tool: &str, input: &Value) -> Result<Result<Outcome, InvokeError>, Failure> {
        Ok(self.host.invoke(&agent::caller(&self.user)?, &self.skill, Some(tool), input).await)
    }

    async fn refused_at_first(&self, version: &str, story: &mut Story<'_>) -> Result<(), Failure> {
        story.line(format!(
            "The skill {} {version} was installed. It can't see a token: it imports nothing that would give it one.",
            self.skill
        ))?;
        if skill::can_see_tokens(&self.host.ready(&self.skill).await?.component) {
            return Err(surprise("gmail-send imports an interface that reveals tokens"));
        }
        let Err(InvokeError::Denied(denials)) = self.invoke("send", &mail("Too early")).await? else {
            return Err(surprise("the skill was run without a grant"));
        };
        let denial = denials.first().ok_or_else(|| surprise("a refusal without a reason"))?;
        story.line(format!(
            "It was run for alice and refused before it started: {}. These lines would allow it:",
            denial.message
        ))?;
        for line in denial.allow.iter().flat_map(|proposal| proposal.lines.lines()) {
            story.detail(line)?;
        }
        if denial.allow.is_empty() {
            return Err(surprise("the refusal does not say what would allow it"));
        }
        if self.arrived().await?.is_empty() { Ok(()) } else { Err(surprise("a mail arrived without a grant")) }
    }

    fn granted(&self, story: &mut Story<'_>) -> Result<(), Failure> {
        self.grant(&self.skill, None)?;
        story.line("The operator granted exactly that, with `clawcoil grant gmail-send --user alice`.")
    }

    /// What `clawcoil grant` does, and the host takes it over without a restart.
    fn grant(&self, skill: &SkillName, use_: Option<Use>) -> Result<(), Failure> {
        let home = self.host.home();
        let installed = self.host.registry().get(skill)?;
        let mut file = PermissionsFile::open(home)?;
        for declared in &installed.manifest.services {
            let mut grant = NewGrant::for_service(skill, installed.digest, declared, &self.user);
            if let (Some(service), Some(use_)) = (&mut grant.service, use_) {
                service.use_ = use_;
            }
            file.add(home, &installed, &self.user, &grant, agent::clock().now())?;
        }
        file.write()?;
        self.host.reload_policy()?;
        Ok(())
    }

    /// Sends a mail, looks for it in the sandbox, and gives the mark of the token that it came with.
    async fn mail(&self, subject: &str, who: &str, story: &mut Story<'_>) -> Result<String, Failure> {
        let token = self.send(subject, who).await?;
        story.line(format!(
            "It was run again: the mail {subject:?} arrived in the sandbox from {who}, with token {token}."
        ))?;

        let report = self.value("self-check", &json!({})).await?;
        let empty = |key: &str| report.get(key).and_then(Value::as_array).is_some_and(Vec::is_empty);
        let blind = empty("environment") && empty("arguments") && report.get("sees-files") == Some(&json!(false));
        // All tokens of the sandbox begin so, and the report is all that the skill knows.
        if !blind || report.to_string().contains("sandbox-") {
            return Err(surprise(&format!("the skill sees more than it should: {report}")));
        }
        let stand_in = report.get("placeholder").and_then(Value::as_str).unwrap_or_default();
        let stand_in: String = stand_in.chars().take(16).collect();
        story.line(format!(
            "The skill itself reports what it has: a stand-in ({}…) instead of the token, no environment, no files.",
            printable(&stand_in)
        ))?;
        Ok(token)
    }

    async fn send(&self, subject: &str, who: &str) -> Result<String, Failure> {
        self.value("send", &mail(subject)).await?;
        let arrived = self.arrived().await?;
        let last = arrived.last().filter(|entry| entry.pointer("/content/subject") == Some(&json!(subject)));
        let entry = last.ok_or_else(|| surprise("the skill says that the mail was sent, and it did not arrive"))?;
        if entry.get("person") != Some(&json!(who)) {
            return Err(surprise(&format!("the mail came from somebody else: {entry}")));
        }
        let token = entry.get("token").and_then(Value::as_str);
        Ok(token.ok_or_else(|| surprise("the mail came without a token"))?.to_owned())
    }

    async fn value(&self, tool: &str, input: &Value) -> Result<Value, Failure> {
        match self.invoke(tool, input).await??.end {
            End::Value(value) => Ok(value),
            other => Err(surprise(&format!("{}.{tool} ended with {other:?}", self.skill))),
        }
    }

    /// What reached the sandbox's APIs, asked for as anybody could.
    async fn arrived(&self) -> Result<Vec<Value>, Failure> {
        let unreadable =
            |error: &dyn std::fmt::Display| surprise(&format!("the sandbox's inbox can't be read: {error}"));
        let url =
            Url::parse(&format!("{}/sandbox/inbox", self.sandbox.origin())).map_err(|error| unreadable(&error))?;
        let reply = browser::send(Method::GET, &url, &[], "").await.map_err(|error| unreadable(&error))?;
        let inbox: Value = serde_json::from_str(&reply.body).map_err(|error| unreadable(&error))?;
        let entries = inbox.get("entries").and_then(Value::as_array);
        Ok(entries.ok_or_else(|| unreadable(&"it has no entries"))?.clone())
    }

    async fn expired_and_refreshed(&self, first: &str, who: &str, story: &mut Story<'_>) -> Result<(), Failure> {
        tokio::time::sleep(LIFETIME).await;
        let second = self.send("The second", who).await?;
        if second == *first {
            return Err(surprise("the second mail came with the token that had expired"));
        }
        story.line(format!(
            "{} s later the token had expired. The next mail came with a fresh one, {second}; the skill noticed nothing.",
            LIFETIME.as_secs()
        ))
    }

    /// A skill that wants the token itself, allowed everything but that.
    async fn reveal_refused(&self, skills: &Path, story: &mut Story<'_>) -> Result<(), Failure> {
        let skill: SkillName = parsed("signed-webhook")?;
        self.host.registry().add(&built(skills, skill.as_str())?, None)?;
        let (owner, account, scopes) =
            (Owner::User(self.user.clone()), parsed(AccountAlias::DEFAULT)?, BTreeSet::new());
        let key = AccessToken::new("a-key-that-signs".to_owned());
        self.host.connector().fixed(&owner, &parsed(WEBHOOK)?, &account, vault::Kind::ApiKey, &scopes, key).await?;
        self.grant(&skill, Some(Use::Inject))?;
        let ready = self.host.ready(&skill).await?;
        let tool = ready.component.tools().first().ok_or_else(|| surprise("signed-webhook has no tool"))?.name();
        match self.host.invoke(&agent::caller(&self.user)?, &skill, Some(tool), &json!({})).await {
            Err(InvokeError::Call(CallError::Link(LinkError::NotLinked { import, .. }))) => story.line(format!(
                "Another one, {skill}, wants to see its key itself. It was granted all but that, and was never started: \
                 {import} takes a grant with use = \"reveal\"."
            )),
            other => Err(surprise(&format!("{skill} was not refused: {other:?}"))),
        }
    }

    async fn disconnected(&self, connection: &Connection, story: &mut Story<'_>) -> Result<(), Failure> {
        let gone = self.host.connector().disconnect(connection.id).await?;
        match gone.revoked {
            Some(Ok(())) => {}
            other => return Err(surprise(&format!("the tokens were not ended at the provider: {other:?}"))),
        }
        let Err(InvokeError::ActionRequired(actions)) = self.invoke("send", &mail("Too late")).await? else {
            return Err(surprise("the skill was run without a connection"));
        };
        let action = actions.first().ok_or_else(|| surprise("a needed action that is none"))?;
        story.line(format!(
            "Alice disconnected, and the tokens were ended at the provider. A run now says what is needed: `{}`.",
            action.command
        ))
    }
}

fn mail(subject: &str) -> Value {
    json!({ "to": ["grace@sandbox.example"], "subject": subject, "body": "Sent by a skill that never had the token." })
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(name: &str) -> Result<T, Failure> {
    name.parse().map_err(|error| Failure::error(format!("{error}")))
}

/// The demo went otherwise than it must.
fn surprise(what: &str) -> Failure {
    Failure::error(format!("the demo went wrong: {what}"))
}

/// The component of an example skill.
fn built(skills: &Path, name: &str) -> Result<PathBuf, Failure> {
    let folder = skills.join(name);
    if !folder.is_dir() {
        let message =
            "the example skills are not built here: run `cargo xtask demo`, or name their folder with --skills";
        return Err(Failure::error(format!("{} is not there; {message}", folder.display())));
    }
    skill::component_in(&folder)
}

/// The lines, numbered, as they happen.
struct Story<'a> {
    output: &'a Output,
    lines: Vec<String>,
}

impl Story<'_> {
    fn title(&self, text: &str) -> Result<(), Failure> {
        self.output.text(text)?;
        self.output.text("")
    }

    fn line(&mut self, text: impl Into<String>) -> Result<(), Failure> {
        let text = text.into();
        self.lines.push(text.clone());
        let number = self.output.styled("1", &format!("{:>2}", self.lines.len()));
        self.output.text(format_args!("{number}  {text}"))
    }

    fn detail(&self, text: &str) -> Result<(), Failure> {
        self.output.text(format_args!("      {}", printable(text)))
    }
}
