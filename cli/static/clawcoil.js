// Everything works without this; with it, it is a little kinder.
"use strict";

// A form that was sent is not sent again by a second click.
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (form.dataset.sent) {
    event.preventDefault();
    return;
  }
  form.dataset.sent = "yes";
  const button = event.submitter;
  if (button) {
    button.setAttribute("aria-busy", "true");
  }
});

// A page that comes back from the browser's memory can be used again.
addEventListener("pageshow", () => {
  for (const form of document.forms) {
    delete form.dataset.sent;
  }
  for (const button of document.querySelectorAll("[aria-busy]")) {
    button.removeAttribute("aria-busy");
  }
});

// Moments in the reader's own time.
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const hour = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" });
const distance = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });
const units = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const far = (at) => {
  const seconds = (at - Date.now()) / 1000;
  const [unit, length] = units.find(([, length]) => Math.abs(seconds) >= 1.5 * length) ?? units.at(-1);
  return distance.format(Math.round(seconds / length), unit);
};
const localTimes = (root) => {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.valueOf())) {
      continue;
    }
    const whole = moment.format(at);
    time.title = whole;
    if (time.classList.contains("relative")) {
      time.textContent = far(at);
    } else {
      time.textContent = at.toDateString() === new Date().toDateString() ? hour.format(at) : whole;
    }
  }
};
localTimes(document);
setInterval(() => localTimes(document), 30000);

// On a narrow screen the navigation is wider than the screen: where one is can be seen.
document.querySelector(".bar [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

const copying = (root) => {
  for (const button of root.querySelectorAll("[data-copy]")) {
    if (navigator.clipboard) {
      button.hidden = false;
      button.addEventListener("click", async () => {
        await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
        button.textContent = "Copied";
      });
    }
  }
};
copying(document);

// Parts of a page that follow what happens: the server says what kind of thing has changed, the page asks for itself again, and
// each part that differs takes the place of the one before. A part in which somebody is at work is left alone.
const topics = document.body.dataset.live.split(" ").filter(Boolean);
const lively = document.querySelector(".lively");
let source = null;
let asking = false;
let again = false;
const isInUse = (part) => {
  const selected = getSelection();
  const selecting = !selected.isCollapsed && part.contains(selected.anchorNode);
  return selecting || (part !== document.activeElement && part.contains(document.activeElement));
};
const follow = async () => {
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" } });
    if (answer.redirected || answer.status === 404) {
      location.reload();
      return;
    }
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of document.querySelectorAll("[data-part]")) {
      const fresh = page.getElementById(part.id);
      if (!fresh || isInUse(part)) {
        continue;
      }
      const open = [...part.querySelectorAll("details")].map((details) => details.open);
      [...fresh.querySelectorAll("details")].forEach((details, n) => { details.open = open[n] ?? details.open; });
      localTimes(fresh);
      copying(fresh);
      if (fresh.innerHTML !== part.innerHTML) {
        part.replaceWith(fresh);
      }
    }
  } catch {
    // The server is away; it says so itself when it is back.
  } finally {
    asking = false;
    if (again) {
      again = false;
      follow();
    }
  }
};
const listen = (wanted) => {
  if (source && !wanted) {
    source.close();
    source = null;
    delete lively.dataset.on;
  } else if (!source && wanted) {
    source = new EventSource("/console/events");
    source.addEventListener("hello", () => { lively.dataset.on = "yes"; });
    source.addEventListener("changed", (event) => {
      if (event.data.split(" ").some((topic) => topics.includes(topic))) {
        follow();
      }
    });
    source.addEventListener("error", () => { delete lively.dataset.on; });
  }
};
if (topics.length > 0 && lively) {
  // A page that nobody looks at needs no connection: browsers have few of them.
  document.addEventListener("visibilitychange", () => {
    listen(!document.hidden);
    if (!document.hidden) {
      follow();
    }
  });
  addEventListener("pagehide", () => listen(false));
  addEventListener("pageshow", () => listen(!document.hidden));
}
