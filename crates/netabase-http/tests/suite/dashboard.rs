//! The dashboard in a browser: headless Chromium, driven by the W3C `WebDriver` protocol.
//!
//! Pictures go to `target/dashboard`. Without Chromium and its driver the tests say so and pass,
//! unless `NETABASE_BROWSER=required`.

use netabase::netabase_store::SigningKey;
use netabase::schema::EncodedRecord;
use netabase::{Author, Envelope, RecordKey, Timestamp};
use netabase_http::ApiConfig;
use serde_json::json;

use crate::browser::Browser;
use crate::common::*;

/// Starts a node with some records, and a browser that looks at it.
async fn looked_at(records: usize) -> Option<(Served, Browser)> {
    let browser = Browser::start().await?;
    let served = Served::start().await;
    served.netabase.start_swarm().await.unwrap();
    let tree = served.netabase.store().open_tree::<Message>().unwrap();
    let rooms = ["garden", "kitchen"];
    let messages: Vec<Message> =
        (0..records).map(|id| message(&format!("{id:06}"), rooms[id % rooms.len()])).collect();
    for batch in messages.chunks(10_000) {
        tree.put_many(batch).unwrap();
    }
    browser.open(&format!("http://{}/", served.address)).await;
    browser.until("the page is live", "document.body.dataset.link === 'up'").await;
    Some((served, browser))
}

fn rows() -> &'static str {
    "[...document.querySelectorAll('#record-table tbody tr')].map((row) => row.dataset.key)"
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_loads_shows_the_node_and_follows_a_put() {
    let Some((served, browser)) = looked_at(3).await else { return };
    let peer = served.netabase.local_peer_id().to_string();
    browser
        .until(
            "the node is named",
            &format!("document.getElementById('node').textContent.includes('{peer}')"),
        )
        .await;
    browser
        .until("it has no peers, and says so", "document.querySelectorAll('#warnings .warning').length > 0")
        .await;
    browser.script("document.getElementById('measure').click()").await;
    browser
        .until(
            "the store is measured",
            "document.getElementById('measured').textContent.includes('Message by room')",
        )
        .await;
    browser.picture("overview.png").await;

    browser.open(&format!("http://{}/#/records/Message", served.address)).await;
    browser.until("three records are listed", &format!("{}.length === 3", rows())).await;
    served
        .client
        .put("/v1/models/Message/records/new", &json!(message("new", "garden")), None)
        .await
        .unwrap();
    browser.until("the fourth appears", &format!("{}.includes('new')", rows())).await;
    served.client.delete("/v1/models/Message/records/000001", None).await.unwrap();
    browser.until("the second goes", &format!("!{}.includes('000001')", rows())).await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_are_found_by_key_and_secondary_key_and_shown_with_the_keyboard_alone() {
    let Some((served, browser)) = looked_at(200).await else { return };
    let page = format!("http://{}/#/records/Message", served.address);
    browser.open(&page).await;
    browser.until("a page of records is listed", &format!("{}.length === 50", rows())).await;
    browser.open(&format!("{page}?value=000123")).await;
    browser.until("one is found by its key", &format!("{}.join() === '000123'", rows())).await;
    browser.open(&format!("{page}?how=prefix&value=00019")).await;
    browser.until("ten are found by a prefix", &format!("{}.length === 10", rows())).await;
    browser.open(&format!("{page}?by=room&value=kitchen")).await;
    browser.until("those of a room are found", &format!("{}[0] === '000001'", rows())).await;

    // "/" goes to the search field, Enter searches, Tab goes to the first record.
    browser.open(&page).await;
    browser.until("everything is listed again", &format!("{}[0] === '000000'", rows())).await;
    browser.script("document.getElementById('main').focus()").await;
    browser.keys("/000007\u{e007}").await;
    browser.until("the record is found", &format!("{}.join() === '000007'", rows())).await;
    browser.script("document.querySelector('#record-table tbody a').focus()").await;
    browser.keys("\u{e007}").await;
    browser
        .until(
            "it is shown",
            "document.getElementById('record-body').textContent.includes('000007 in kitchen')",
        )
        .await;
    browser
        .until("with its author", "document.getElementById('record-body').textContent.includes('Author')")
        .await;
    browser.picture("record.png").await;
    browser.keys("\u{e00c}").await;
    browser.until("Escape closes it", "document.getElementById('record').hidden").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_opens_whose_key_a_path_cannot_have() {
    let Some((served, browser)) = looked_at(0).await else { return };
    // In the order of the list.
    let keys = ["", ".", "..", "/", "~"];
    for key in keys {
        served.netabase.put_record(message(key, &format!("room of <{key}>"))).await.unwrap();
    }
    for (position, key) in keys.iter().enumerate() {
        browser.open(&format!("http://{}/#/records/Message", served.address)).await;
        let link = format!("[...document.querySelectorAll('#record-table tbody a')].at({position})");
        browser.until("they are listed", &format!("{link} !== undefined")).await;
        browser.until("the row is followed", &format!("({link}.click(), true)")).await;
        let value = "document.getElementById('record-value')?.textContent ?? ''";
        let shown = format!("({value}).includes('room of <{key}>')");
        browser.until(&format!("the record of <{key}> is shown"), &shown).await;
    }
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_record_says_is_text_and_nothing_else() {
    let Some((served, browser)) = looked_at(0).await else { return };
    let text = format!(
        "<img src=x onerror=\"window.hacked=1\"><script>window.hacked=1</script>\u{202e}\u{200b}{}",
        "x".repeat(1 << 19)
    );
    let hostile = Message { id: "<b>bold</b>".into(), room: "\u{202e}room".into(), text };
    served.netabase.put_record(hostile).await.unwrap();
    browser.open(&format!("http://{}/#/records/Message/%3Cb%3Ebold%3C%2Fb%3E", served.address)).await;
    browser
        .until(
            "it is shown as text",
            "document.getElementById('record-body').textContent.includes('onerror')",
        )
        .await;
    browser
        .until(
            "none of it is markup",
            "!window.hacked && !document.querySelector('main img, main b, main script')",
        )
        .await;
    browser
        .until(
            "all of it is visible",
            r"document.body.textContent.includes('\\u{202e}\\u{200b}')
                && !/[\u{200b}\u{202e}]/u.test(document.body.textContent)",
        )
        .await;
    browser
        .until("not all of it at once", "document.getElementById('record-body').textContent.length < 100000")
        .await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_goes_away_is_said_to_and_comes_back_by_itself() {
    let Some((mut served, browser)) = looked_at(1).await else { return };
    let (address, netabase) = (served.address, served.netabase.clone());
    served.stop().await.unwrap();
    browser.until("the page says so", "!document.getElementById('away').hidden").await;
    browser.picture("away.png").await;
    let again = ApiConfig { bind: address, ..config() };
    let _served = Served::with(netabase, again).await;
    browser
        .until(
            "it goes on by itself",
            "document.getElementById('away').hidden && document.body.dataset.link === 'up'",
        )
        .await;
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_records_and_peers_stay_out_of_the_page() {
    let Some((served, browser)) = looked_at(100_000).await else { return };
    browser.open(&format!("http://{}/#/records/Message", served.address)).await;
    browser.until("a page of them is listed", &format!("{}.length === 50", rows())).await;
    browser.script("document.getElementById('page-next').click()").await;
    browser.until("then the next one", &format!("{}[0] === '000050'", rows())).await;
    browser.until("and no more than that", "document.querySelectorAll('*').length < 2000").await;

    // Two hundred nodes are more than a test can start: the answer about them is made in the page.
    browser
        .script(
            "const asked = window.fetch; window.fetch = (url, options) => String(url).startsWith('/v1/peers')
             ? Promise.resolve(new Response(JSON.stringify({ peers: [...Array(200).keys()].map((peer) => ({
                 peer: `12D3Koo${peer}`, connected: true, agent: 'netabase', rtt_ms: null, report: null,
                 connections: [{ address: '/ip4/192.0.2.1/tcp/4001', direction: 'incoming', since: '2026-01-01T00:00:00Z' }],
               })) }), { headers: { 'content-type': 'application/json' } })) : asked(url, options);
             location.hash = '#/peers';",
        )
        .await;
    browser
        .until(
            "all of them are in the table",
            "document.querySelectorAll('#peer-table tbody tr').length === 200",
        )
        .await;
    browser.picture("peers.png").await;
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_author_is_refused_allowed_and_removed() {
    let Some((served, browser)) = looked_at(2).await else { return };
    let flooder = SigningKey::from_bytes(&[7; 32]);
    for id in 0..3 {
        let flood = message(&format!("flood {id}"), "garden");
        let (key, payload) = (
            RecordKey::of(&MessagePrimaryKey(flood.id.clone())).unwrap(),
            EncodedRecord::of(&flood).unwrap().payload,
        );
        let now = Timestamp::from_unix_millis(served.netabase.store().replica().clock().unix_millis());
        let envelope = Envelope::sign(&flooder, &key, now, 0, Some(&payload));
        served.netabase.store().replica().admit(key.as_bytes(), envelope.as_bytes()).unwrap();
    }
    served.netabase.store().flush().unwrap();
    let author = Author::of(&flooder).to_string();
    browser.open(&format!("http://{}/#/authors", served.address)).await;
    let row = format!("document.querySelector('#author-table tr[data-key=\"{author}\"]')");
    let column = |number: usize| format!("{row}?.children[{number}].textContent");
    browser.until("its records are counted", &format!("{} === '3'", column(1))).await;
    browser.picture("authors.png").await;
    let own =
        "document.querySelector('#author-table .tag').closest('tbody').textContent.includes('this node')";
    browser.until("the node itself is named", own).await;

    // Nothing happens at the first click.
    let click = |act: &str| format!("{row}.querySelector('[data-act={act}]').click()");
    browser.script(&click("remove")).await;
    browser.until("it asks again", &format!("{row}.querySelector('[data-armed]') !== null")).await;
    assert!(served.netabase.store().open_tree::<Message>().unwrap().len().unwrap() == 5);
    browser.script(&click("remove")).await;
    let said = |text: &str| format!("document.getElementById('authors-said').textContent.includes('{text}')");
    browser.until("the records are removed", &said("Removed 3 records")).await;
    assert!(served.netabase.store().open_tree::<Message>().unwrap().len().unwrap() == 2);

    served.netabase.refuse_author(Author::of(&flooder)).await.unwrap();
    browser.until("it is listed as refused", &format!("({})?.includes('refused')", column(0))).await;
    browser.script(&click("allow")).await;
    browser.until("it is allowed", &said("Allowed")).await;
    assert_eq!(served.netabase.refused_authors(), []);
    assert_eq!(browser.complaints().await, Vec::<String>::new());
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_needs_no_scrolling_sideways_and_the_dark_is_dark() {
    let Some((served, browser)) = looked_at(60).await else { return };
    browser.size(360, 740).await;
    for view in ["overview", "peers", "records/Message", "records/Message/000001", "authors", "events"] {
        browser.open(&format!("http://{}/#/{view}", served.address)).await;
        let name = view.replace('/', "-");
        browser.until(view, "document.documentElement.scrollWidth <= window.innerWidth && document.body.dataset.link === 'up'").await;
        browser.picture(&format!("phone-{name}.png")).await;
    }
    browser.script("document.getElementById('theme').click()").await;
    browser.until("it is dark", "document.documentElement.dataset.theme === 'dark'").await;
    browser.picture("phone-dark.png").await;
    browser.end().await;
}

/// Has the page ask for its peers only when it is told to: the clock that asks every five seconds
/// stands still.
async fn without_the_clock_of_peers(browser: &Browser) {
    browser
        .script(
            "window.asked = 0; const [later, asks] = [window.setTimeout, window.fetch];
             window.setTimeout = (task, wait, ...rest) => wait === 5000 ? 0 : later(task, wait, ...rest);
             window.fetch = (url, options) => { if (url === '/v1/peers') window.asked += 1; return asks(url, options); };",
        )
        .await;
    browser.until("the last of that clock is over", "window.asked > 0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_and_goes_is_in_the_graph_at_once() {
    let Some((served, browser)) = looked_at(1).await else { return };
    browser
        .until("nobody is there", "document.getElementById('overview-graph').ariaLabel.includes('0 peers')")
        .await;
    without_the_clock_of_peers(&browser).await;
    let other = node();
    other.start_swarm().await.unwrap();
    let address = other.listen_addresses().first().unwrap().to_string();
    let peer = json!({ "address": format!("{address}/p2p/{}", other.local_peer_id()) });
    served.client.post("/v1/peers", &peer).await.unwrap();
    browser
        .until("one has come", "document.getElementById('overview-graph').ariaLabel.includes('1 peer.')")
        .await;
    browser.picture("overview-peer.png").await;
    other.stop_swarm().await.unwrap();
    browser
        .until("it has gone", "document.getElementById('overview-graph').ariaLabel.includes('0 peers')")
        .await;
    browser.end().await;
}

/// Has the page think that nobody looks at it, or that somebody does again.
async fn hide(browser: &Browser, hidden: bool) {
    browser
        .script(&format!(
            "Object.defineProperty(document, 'hidden', {{ configurable: true, get: () => {hidden} }});
             document.dispatchEvent(new Event('visibilitychange'));"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_while_nobody_looked_is_listed_afterwards() {
    let Some((served, browser)) = looked_at(3).await else { return };
    browser
        .script(
            "const asks = window.fetch; window.fetch = async (url, options) => {
               const answer = await asks(url, options);
               if (url.startsWith('/v1/changes')) answer.clone().body.getReader().read().then(() => { window.heard = true; });
               return answer; };
             location.hash = '#/records/Message';",
        )
        .await;
    browser.until("the stream says where it is", &format!("window.heard && {}.length === 3", rows())).await;
    hide(&browser, true).await;
    served
        .client
        .put("/v1/models/Message/records/new", &json!(message("new", "garden")), None)
        .await
        .unwrap();
    hide(&browser, false).await;
    browser.until("the new one is there", &format!("{}.includes('new')", rows())).await;

    // The row that has the focus is not moved when one before it goes.
    browser.script("document.querySelector('[data-key=\"000002\"] a').focus()").await;
    served.client.delete("/v1/models/Message/records/000000", None).await.unwrap();
    browser.until("the first has gone", &format!("!{}.includes('000000')", rows())).await;
    browser.until("the focus stays", "document.activeElement.closest('tr')?.dataset.key === '000002'").await;
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_of_the_network_is_not_made_anew_for_each_change() {
    let Some((served, browser)) = looked_at(3).await else { return };
    browser
        .script(
            "window.asked = []; const asks = window.fetch; window.fetch = (url, options) => {
               if (url.includes('scope=network')) window.asked.push(url); return asks(url, options); };
             location.hash = '#/records/Message?scope=network';",
        )
        .await;
    browser.until("three records are listed", &format!("{}.length === 3", rows())).await;
    browser
        .until("the node has less time than the page", "window.asked[0].includes('timeout_ms=25000')")
        .await;
    served
        .client
        .put("/v1/models/Message/records/new", &json!(message("new", "garden")), None)
        .await
        .unwrap();
    browser
        .until("it says that it may be outdated", "!document.getElementById('records-outdated').hidden")
        .await;
    browser.until("and has asked once", "window.asked.length === 1").await;
    browser.picture("records-outdated.png").await;
    browser.script("document.getElementById('records-again').click()").await;
    browser.until("it asks when told to", &format!("{}.includes('new')", rows())).await;
    browser.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_answer_is_no_node_that_is_away() {
    let Some((served, browser)) = looked_at(1).await else { return };
    browser
        .script(
            "const asks = window.fetch; window.fetch = (url, options) => url.includes('/records')
               ? Promise.reject(new DOMException('slow', 'TimeoutError')) : asks(url, options);
             window.gone = false;
             new MutationObserver(() => { if (document.body.dataset.link === 'away') window.gone = true; })
               .observe(document.body, { attributes: true });
             location.hash = '#/records/Message';",
        )
        .await;
    browser
        .until(
            "it says so",
            "document.getElementById('records-problem').textContent.includes('longer than 30 s')",
        )
        .await;
    browser.until("and nothing else", "!window.gone").await;
    drop(served);
    browser.end().await;
}
