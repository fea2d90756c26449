//! negentropy as it comes, over items in memory.

use negentropy::{Id, Negentropy, NegentropyStorageVector};

use super::{FRAME_BYTES, Item, Side};

pub(super) struct Plain {
    negentropy: Negentropy<'static, NegentropyStorageVector>,
    have: Vec<Id>,
    need: Vec<Id>,
}

impl Plain {
    pub(super) fn build(items: &[Item]) -> anyhow::Result<Self> {
        let mut storage = NegentropyStorageVector::with_capacity(items.len());
        for (time, id) in items {
            storage.insert(*time, Id::from_byte_array(*id))?;
        }
        storage.seal()?;
        let negentropy = Negentropy::owned(storage, u64::try_from(FRAME_BYTES)?)?;
        Ok(Self { negentropy, have: Vec::new(), need: Vec::new() })
    }
}

impl Side for Plain {
    fn initiate(&mut self) -> anyhow::Result<Vec<u8>> {
        Ok(self.negentropy.initiate()?)
    }

    fn respond(&mut self, message: &[u8]) -> anyhow::Result<Vec<u8>> {
        Ok(self.negentropy.reconcile(message)?)
    }

    fn take(&mut self, answer: &[u8]) -> anyhow::Result<Option<Vec<u8>>> {
        Ok(self.negentropy.reconcile_with_ids(answer, &mut self.have, &mut self.need)?)
    }

    fn found(&self) -> (usize, usize) {
        (self.have.len(), self.need.len())
    }
}
