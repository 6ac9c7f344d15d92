"""FSDP on CPUs, which Lightning does not offer: two processes instead of two GPUs."""

from torch.distributed.fsdp import FullOptimStateDictConfig, FullStateDictConfig, OptimStateKeyType, StateDictType
from torch.distributed.fsdp import FullyShardedDataParallel as FSDP

from sfdfd.training.fsdp import ShardedStrategy


class ShardedOnCPUs(ShardedStrategy):
    """What Lightning writes for GPUs: a device by its index, and full states that are moved to the CPU."""

    def _setup_model(self, model):
        return FSDP(
            model, device_id=self.root_device, mixed_precision=self.mixed_precision_config,
            sharding_strategy=self.sharding_strategy, **self.kwargs,
        )  # fmt: skip

    def _full_state(self):
        return FSDP.state_dict_type(
            self.model, StateDictType.FULL_STATE_DICT, FullStateDictConfig(rank0_only=True),
            FullOptimStateDictConfig(rank0_only=True),
        )  # fmt: skip

    def lightning_module_state_dict(self):
        with self._full_state():
            return self.model.state_dict()

    def optimizer_state(self, optimizer):
        with self._full_state():
            state = FSDP.optim_state_dict(self.model, getattr(optimizer, "_optimizer", optimizer))
            return (
                FSDP.rekey_optim_state_dict(state, OptimStateKeyType.PARAM_ID, self.model)
                if self.global_rank == 0
                else state
            )
