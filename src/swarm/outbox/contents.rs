//! What messages contain: of what is in effect when they are sent.

use super::super::wire::{self, StateMessage, TooLarge};
use super::Outbox;
use crate::limiter::ActiveCuts;

impl Outbox {
    /// The announcement of our last cut of a resource, if the cut still stands.
    pub(super) fn announced_cut(&self, resource: &str) -> Option<Result<Vec<u8>, TooLarge>> {
        let standing = self.limiter.standing(resource)?;
        let cuts = wire_cuts(resource, &standing);
        let ours = cuts.filter(|cut| cut.origin.is_ours).min_by_key(|cut| cut.age)?;
        let within = |most| wire::announcement(&ours, standing.tokens, self.instance, most);
        // What is too large after a failure may be what the bus takes at other times.
        Some(within(self.most_bytes()).or_else(|_| within(self.max_payload())))
    }

    /// The announcement of our last pause of a resource, if no other ends later.
    pub(super) fn announced_pause(&self, resource: &str) -> Option<Result<Vec<u8>, TooLarge>> {
        let standing = self.limiter.standing(resource)?;
        let ours = standing.pause.filter(|pause| pause.origin.is_ours)?;
        let mut message = StateMessage::new(&self.id, self.instance);
        let pause = Some((resource, &ours, standing.now));
        Some(message.add(&[], pause, self.max_payload()).map(|_| message.encode()))
    }

    /// As much of what is still to be told as fits into a message, and its resources.
    pub(super) fn state(&mut self) -> Option<(Vec<String>, Vec<u8>)> {
        let most = self.most_bytes();
        let mut message = StateMessage::new(&self.id, self.instance);
        let mut told = Vec::new();
        while (self.alone == 0 || told.is_empty())
            && let Some(resource) = self.to_tell.pop_front()
        {
            // Another agent may have told it meanwhile.
            if self.trickle.as_ref().is_none_or(|trickle| trickle.is_covered(&resource)) {
                continue;
            }
            let Some(standing) = self.limiter.standing(&resource) else { continue };
            let cuts: Vec<_> = wire_cuts(&resource, &standing).collect();
            let pause =
                standing.pause.as_ref().map(|pause| (resource.as_str(), pause, standing.now));
            if cuts.is_empty() && pause.is_none() {
                continue;
            }
            let mut add = |most| message.add(&cuts, pause, most);
            match add(most).or_else(|_| add(self.max_payload())) {
                Ok(true) => told.push(resource),
                Ok(false) => {
                    self.to_tell.push_front(resource);
                    break;
                }
                Err(TooLarge { bytes }) => self.drop_message(&resource, bytes),
            }
        }
        self.alone = self.alone.saturating_sub(1);
        (!told.is_empty()).then(|| (told, message.encode()))
    }
}

fn wire_cuts<'a>(
    resource: &'a str,
    standing: &'a ActiveCuts,
) -> impl Iterator<Item = wire::Cut<'a>> + use<'a> {
    standing.cuts.iter().map(move |cut| wire::Cut {
        resource,
        id: cut.id,
        factor: cut.factor,
        plain: cut.plain,
        age: cut.age(standing.now),
        origin: &cut.origin,
    })
}
