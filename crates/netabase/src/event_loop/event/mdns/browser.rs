//! mDNS in a browser, which does not exist there.

use std::convert::Infallible;

use crate::event_loop::EventLoop;

impl EventLoop {
    #[expect(clippy::unused_self, reason = "elsewhere it is told of peers")]
    pub(crate) fn on_mdns(&mut self, event: Infallible) {
        match event {}
    }
}
