"""MQTT in a page of a real browser, and what a WebSocket listener says to who is none."""

import http.client
import http.server
import queue
import shutil
import subprocess
import threading

from paho_client import V5, Client
from scenario import scenario
from scenarios_mqttjs import MODULES

WAIT_SECONDS = 60

PAGE = """<!doctype html><title>page</title><script src="mqtt.js"></script><script>
const tell = words => fetch("said", {{ method: "POST", body: words }});
const client = mqtt.connect("{url}", {{ clientId: "page", protocolVersion: {version}, reconnectPeriod: 0 }});
const got = [];
client.on("error", error => tell(`failed: ${{error.message}}`));
client.on("connect", async () => {{
  await client.subscribeAsync("page/#", {{ qos: 2 }});
  for (const qos of [0, 1, 2]) await client.publishAsync(`page/${{qos}}`, new Uint8Array(qos * 70000), {{ qos }});
}});
client.on("message", async (topic, payload) => {{
  got.push(`${{topic}}=${{payload.length}}`);
  if (got.length === 3) {{
    await client.endAsync();
    tell(`done: ${{got.sort().join(" ")}}`);
  }}
}});
</script>
"""


class Site(http.server.BaseHTTPRequestHandler):
    """Where the page comes from, so that it has an origin, and where it says how it went."""

    def do_GET(self):
        files = {"/": self.server.page.encode(), "/mqtt.js": (MODULES / "mqtt" / "dist" / "mqtt.min.js").read_bytes()}
        found = files.get(self.path)
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "text/html" if self.path == "/" else "text/javascript")
        self.end_headers()
        self.wfile.write(found or b"")

    def do_POST(self):
        self.server.said.put(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


def what_a_browser_says_of(page, folder):
    """Opens the page in Chromium, headless, and waits for what it posts to where it came from."""
    browser = shutil.which("chromium")
    assert browser, "chromium is missing"
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site) as site:
        site.page, site.said = page, queue.Queue()
        threading.Thread(target=site.serve_forever, daemon=True).start()
        # The browser's own store of authorities is not ours to change; that the certificate is good is what OpenSSL, Node
        # and Python check.
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                   "--ignore-certificate-errors", f"--user-data-dir={folder}", f"http://127.0.0.1:{site.server_port}/"]
        with (folder.parent / "browser.log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            return site.said.get(timeout=WAIT_SECONDS)
        except queue.Empty:
            raise AssertionError(f"the page said nothing:\n{(folder.parent / 'browser.log').read_text()[-2000:]}") from None
        finally:
            process.terminate()
            process.wait()
            site.shutdown()


@scenario
def web_page_in_a_browser_publishes_and_hears(broker):
    for version in (4, 5):
        page = PAGE.format(url=f"{broker.transport}://127.0.0.1:{broker.port}", version=version)
        said = what_a_browser_says_of(page, broker.folder / f"browser-{version}")
        assert said == "done: page/0=0 page/1=70000 page/2=140000", said


@scenario
def web_requests_that_open_nothing_are_answered(broker):
    if broker.authority:
        return
    for headers, status in (({}, 400), ({"Upgrade": "websocket", "Connection": "Upgrade"}, 426)):
        connection = http.client.HTTPConnection("127.0.0.1", broker.port, timeout=WAIT_SECONDS)
        connection.request("GET", "/mqtt", headers=headers)
        answer = connection.getresponse()
        assert answer.status == status and answer.read(), answer.status


@scenario
def web_sessions_and_others_are_the_same(broker):
    client = Client(broker, "web-durable", V5, durable=True)
    client.subscribe("web/kept", 1)
    client.close()
    sender = Client(broker, "web-sender", V5)
    for number in range(100):
        sender.publish("web/kept", f"{number}", 1)
    sender.close()
    broker.restart()
    client = Client(broker, "web-durable", V5, durable=True)
    client.expect([f"{number}" for number in range(100)])
    client.close()
