//! The columns of a stored event that its seal covers, and whether it does.

use agentlens_domain::apply::OrgContext;
use agentlens_domain::chain::{Hash, NO_SEAL, Seal, SealedColumns};

use super::events::StoredEvent;

impl StoredEvent {
    pub(crate) fn sealed(&self) -> SealedColumns<'_> {
        let is_wide = self.encoding == Self::ENCODING_WIDE;
        SealedColumns {
            position: self.position,
            seq: self.seq,
            ts_us: self.ts_us,
            received_us: self.received_us,
            expire_day: self.expire_day,
            duration_us: self.duration_us,
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            cost_nanos: self.cost_nanos,
            reported_cost_nanos: self.reported_cost_nanos,
            computed_cost_nanos: self.computed_cost_nanos,
            encoding: self.encoding,
            workspace_id: &self.workspace_id,
            environment: &self.environment,
            name: self.name.as_deref(),
            provider: self.provider.as_deref(),
            model: self.model.as_deref(),
            call_id: self.call_id.as_deref(),
            user_id: self.user_id.as_deref(),
            usage_parts: self.usage_parts.as_deref(),
            cost_source: self.cost_source.as_deref(),
            preview: self.preview.as_deref(),
            wide: is_wide.then_some((self.payload.as_str(), self.metadata.as_str())),
        }
    }

    /// Whether its seal matches, given the seal of the event before it in its chain. That may be missing for the first event only. It may
    /// come from anywhere: no other seal than the right one makes this one match.
    pub(crate) fn is_sealed_after(&self, previous: Option<Seal>, context: &OrgContext) -> bool {
        let Some(previous) = previous.or((self.seq == 1).then_some(NO_SEAL)) else { return false };
        let seal = context.seals.seal_event(&previous, &Hash::from(self.hash), &self.sealed().bytes());
        seal.as_slice() == self.seal
    }
}
