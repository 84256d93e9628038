import numpy as np
import torch
from timm.layers import DropPath
from torch import nn

from ssl_lens.backbones.backbone import Backbone
from ssl_lens.methods.heads import ProjectionHead
from ssl_lens.methods.network import Network
from ssl_lens.methods.student_teacher import make_teacher, update_teacher


class DroppingBackbone(Backbone):
    """One convolution with batch norm and a residual path that is often dropped."""

    def __init__(self) -> None:
        super().__init__(in_channels=1, embed_dim=4, reduction=8)
        self.patches = nn.Sequential(nn.Conv2d(1, 4, 8, 8), nn.BatchNorm2d(4))
        self.drop_path = DropPath(0.5)

    def stages(self, images):
        maps = self.patches(images)
        return [maps + self.drop_path(maps)]

    def config(self):
        return {}


def student() -> Network:
    torch.manual_seed(0)
    return Network(DroppingBackbone(), ProjectionHead(4, 6, 5, 3), ProjectionHead(4, 6, 5, 3)).double()


def test_teacher_is_an_exact_copy_of_its_own():
    net = student()
    teacher = make_teacher(net)
    for name, value in net.state_dict().items():
        assert torch.equal(teacher.state_dict()[name], value)
    with torch.no_grad():
        net.backbone.patches[0].weight.add_(1)
    assert not torch.equal(teacher.backbone.patches[0].weight, net.backbone.patches[0].weight)
    assert not any(p.requires_grad for p in teacher.parameters())
    assert all(p.requires_grad for p in net.parameters())


def test_teacher_drops_no_path_and_keeps_batch_statistics():
    net = student()
    teacher = make_teacher(net.eval())
    assert all(module.training for module in teacher.modules())
    crops = [torch.randn(2, 16, 1, 16, 16, dtype=torch.float64)]
    torch.testing.assert_close(teacher(crops).view_logits, teacher(crops).view_logits, rtol=0, atol=0)
    assert teacher.backbone.patches[1].num_batches_tracked == 2
    assert net.backbone.drop_path.drop_prob == 0.5
    first, second = (net.train()(crops).view_logits for _ in range(2))
    assert not torch.equal(first, second)


def test_ema_by_small_numbers():
    teacher, net = nn.Linear(1, 1), nn.Linear(1, 1)
    nn.init.constant_(teacher.weight, 1.0), nn.init.constant_(net.weight, 3.0)
    update_teacher(teacher, net, momentum=0.75)
    assert teacher.weight.item() == 1.5
    update_teacher(teacher, net, momentum=1.0)
    assert teacher.weight.item() == 1.5
    update_teacher(teacher, net, momentum=0.0)
    assert teacher.weight.item() == 3.0


def test_ema_leaves_buffers_alone():
    net = student()
    teacher = make_teacher(net)
    net.backbone.patches[1].running_mean.fill_(5.0)
    update_teacher(teacher, net, momentum=0.0)
    assert not teacher.backbone.patches[1].running_mean.any()


def test_golden_ema(golden):
    data = np.load(golden / "ema.npz", allow_pickle=False)

    def net() -> nn.Module:
        return nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)).double()

    teacher, follower = net(), net()
    teacher.load_state_dict({name: torch.from_numpy(data[f"teacher_init/{name}"]) for name in teacher.state_dict()})
    names = [name for name, _ in teacher.named_parameters()]
    for name, _ in follower.named_buffers():
        follower.get_buffer(name).copy_(torch.from_numpy(data[f"student_buffer_final/{name}"]))
    for step, momentum in enumerate(data["momentum"]):
        with torch.no_grad():
            for name in names:
                follower.get_parameter(name).copy_(torch.from_numpy(data[f"student/{name}"][step]))
        update_teacher(teacher, follower, float(momentum))
        for name in names:
            actual = teacher.get_parameter(name).detach()
            np.testing.assert_allclose(actual, data[f"teacher_after/{name}"][step], rtol=0, atol=1e-12)
    for name, buffer in teacher.named_buffers():
        np.testing.assert_array_equal(buffer, data[f"teacher_buffer_final/{name}"])
