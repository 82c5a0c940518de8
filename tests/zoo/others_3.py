"""Graphs, sets, pairs, and recommenders."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from zoo.others import both, constant, every
from zoo.specimen import Planted, Specimen, filled, scaled


def citations(n=48, features=24, classes=4):
    """Return bags of words, a normalized adjacency matrix, and the communities that make both."""
    y = torch.randint(classes, (n,))
    words = torch.randn(classes, features)[y] + torch.randn(n, features)
    linked = torch.rand(n, n) < torch.where(y[:, None] == y, 0.3, 0.03)
    A = (linked | linked.T | torch.eye(n, dtype=torch.bool)).float()
    d = A.sum(1).rsqrt()
    return words / words.std(), d[:, None] * A * d, y


class GraphConvolution(nn.Module):
    """Simple GCN layer, similar to https://arxiv.org/abs/1609.02907."""

    def __init__(self, in_features, out_features):
        super().__init__()
        self.weight = nn.Parameter(torch.FloatTensor(in_features, out_features))
        self.bias = nn.Parameter(torch.FloatTensor(out_features))
        stdv = 1.0 / math.sqrt(self.weight.size(1))
        self.weight.data.uniform_(-stdv, stdv)
        self.bias.data.uniform_(-stdv, stdv)

    def forward(self, input, adj):
        support = torch.mm(input, self.weight)
        return torch.mm(adj, support) + self.bias


class GCN(nn.Module):
    def __init__(self, nfeat=24, nhid=32, nclass=4):
        super().__init__()
        self.gc1, self.gc2 = GraphConvolution(nfeat, nhid), GraphConvolution(nhid, nhid)
        self.gc3, self.gc4 = GraphConvolution(nhid, nhid), GraphConvolution(nhid, nclass)

    def forward(self, x, adj):
        for gc in (self.gc1, self.gc2, self.gc3):
            x = F.relu(gc(x, adj))
        return F.log_softmax(self.gc4(x, adj), dim=1)


def gcn():
    x, adj, y = citations()
    return GCN(), (x, adj), y, None


class GraphAttentionLayer(nn.Module):
    def __init__(self, in_features, out_features, alpha=0.2):
        super().__init__()
        self.out_features, self.leakyrelu = out_features, nn.LeakyReLU(alpha)
        self.W = nn.Parameter(torch.empty(size=(in_features, out_features)))
        nn.init.xavier_uniform_(self.W.data, gain=1.414)
        self.a = nn.Parameter(torch.empty(size=(2 * out_features, 1)))
        nn.init.xavier_uniform_(self.a.data, gain=1.414)

    def forward(self, h, adj):
        Wh = torch.mm(h, self.W)
        Wh1 = torch.matmul(Wh, self.a[: self.out_features, :])
        Wh2 = torch.matmul(Wh, self.a[self.out_features :, :])
        e = self.leakyrelu(Wh1 + Wh2.T)
        attention = torch.where(adj > 0, e, -9e15 * torch.ones_like(e))
        return torch.matmul(F.softmax(attention, dim=1), Wh)


class GAT(nn.Module):
    def __init__(self, nfeat=24, nhid=8, nclass=4, nheads=3):
        super().__init__()
        self.attentions = [GraphAttentionLayer(nfeat, nhid) for _ in range(nheads)]
        for i, attention in enumerate(self.attentions):
            self.add_module(f"attention_{i}", attention)
        self.out_att = GraphAttentionLayer(nhid * nheads, nclass)

    def forward(self, x, adj):
        x = torch.cat([F.elu(att(x, adj)) for att in self.attentions], dim=1)
        return F.log_softmax(F.elu(self.out_att(x, adj)), dim=1)


def gat():
    x, adj, y = citations()
    return GAT(), (x, adj), y, None


class DeepSet(nn.Module):
    def __init__(self, dim=3, width=48, classes=4):
        super().__init__()
        self.phi = nn.Sequential(nn.Linear(dim, width), nn.ELU(), nn.Linear(width, width), nn.ELU())
        self.rho = nn.Sequential(nn.Linear(width, width), nn.ELU(), nn.Linear(width, classes))

    def forward(self, X):
        *batch, size, dim = X.shape
        ids = torch.arange(math.prod(batch)).repeat_interleave(size)
        h = self.phi(X.reshape(-1, dim))
        return self.rho(h.new_zeros(math.prod(batch), h.shape[1]).index_add_(0, ids, h) / size)


def clouds(n=32, size=16, classes=4):
    """Return sets of points, stretched in a way that is their class."""
    y = torch.randint(classes, (n,))
    stretch = torch.rand(classes, 3).mul(2).add(0.2)[y]
    return torch.randn(n, size, 3) * stretch[:, None], y


def deep_sets():
    return DeepSet(), *clouds(), None


class PointNetCls(nn.Module):
    def __init__(self, k=4):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(3, 32, 1), nn.Conv1d(32, 64, 1)
        self.conv3 = nn.Conv1d(64, 96, 1)
        self.bn1, self.bn2, self.bn3 = nn.BatchNorm1d(32), nn.BatchNorm1d(64), nn.BatchNorm1d(96)
        self.fc1, self.bn4, self.fc2 = nn.Linear(96, 48), nn.BatchNorm1d(48), nn.Linear(48, k)

    def forward(self, x):
        x = x.transpose(2, 1)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = torch.max(self.bn3(self.conv3(x)), 2, keepdim=True)[0].view(-1, 96)
        return F.log_softmax(self.fc2(F.relu(self.bn4(self.fc1(x)))), dim=1), None


def pointnet():
    return PointNetCls(), *clouds(), None


class SiameseNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.cnn1 = nn.Sequential(
            *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        )
        self.fc1 = nn.Sequential(nn.Linear(16 * 9, 64), nn.ReLU(inplace=True), nn.Linear(64, 8))
        for m in self.modules():
            if isinstance(m, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
                nn.init.constant_(m.bias, 0)

    def forward_once(self, x):
        output = self.cnn1(x)
        return self.fc1(output.view(output.size()[0], -1))

    def forward(self, input1, input2):
        return self.forward_once(input1), self.forward_once(input2)


class ContrastiveLoss(nn.Module):
    def __init__(self, margin=2.0):
        super().__init__()
        self.margin = margin

    def forward(self, outputs, label):
        d = F.pairwise_distance(*outputs)
        return torch.mean((1 - label) * d.pow(2) + label * torch.clamp(self.margin - d, min=0.0).pow(2))


def siamese():
    prototypes = torch.randn(6, 1, 12, 12)
    a, b = torch.randint(6, (2, 32))
    b = torch.where(torch.rand(32) < 0.4, a, b)
    x1, x2 = (prototypes[i] + 0.5 * torch.randn(32, 1, 12, 12) for i in (a, b))
    return SiameseNetwork(), (x1, x2), (a != b).float(), ContrastiveLoss()


class DeepFactorizationMachineModel(nn.Module):
    def __init__(self, field_dims=(30, 20, 12, 8), embed_dim=16, mlp_dims=(64, 64)):
        super().__init__()
        self.offsets = np.array((0, *np.cumsum(field_dims)[:-1]), dtype=np.int64)
        self.fc = nn.Embedding(sum(field_dims), 1)
        self.bias = nn.Parameter(torch.zeros((1,)))
        self.embedding = nn.Embedding(sum(field_dims), embed_dim)
        nn.init.normal_(self.embedding.weight.data, std=0.1)
        nn.init.normal_(self.fc.weight.data, std=0.01)
        layers, width = [], len(field_dims) * embed_dim
        for dim in mlp_dims:
            layers += [nn.Linear(width, dim), nn.BatchNorm1d(dim), nn.ReLU(), nn.Dropout(p=0.2)]
            width = dim
        self.mlp = nn.Sequential(*layers, nn.Linear(width, 1))

    def forward(self, x):
        x = x + x.new_tensor(self.offsets).unsqueeze(0)
        e = self.embedding(x)
        pairs = 0.5 * (torch.sum(e, dim=1) ** 2 - torch.sum(e**2, dim=1)).sum(1, keepdim=True)
        y = self.fc(x).sum(1) + self.bias + pairs + self.mlp(e.flatten(1))
        return y.squeeze(1)


def deepfm():
    ids = torch.stack([torch.randint(n, (64,)) for n in (30, 20, 12, 8)], 1)
    liked = torch.randn(30)[ids[:, 0]] + torch.randn(20)[ids[:, 1]] * torch.randn(8)[ids[:, 3]]
    return DeepFactorizationMachineModel(), ids, (liked > 0).float(), F.binary_cross_entropy_with_logits


SPECIMENS = (
    Specimen(
        "gcn",
        gcn,
        (
            Planted("std of 0.002", every(".weight", lambda w: w.mul_(0.02)), ("gc",)),
            Planted("biases of -5", filled("gc3.bias", -5), ("gc3",)),
            Planted(
                "one constant in two layers",
                both(constant("gc1.", 0.1), constant("gc2.", 0.1)),
                ("gc1", "gc2"),
            ),
        ),
        classes=4,
    ),
    Specimen(
        "gat",
        gat,
        (
            Planted("a of the output x 100", scaled("out_att.a", 100), ("out_att",)),
            Planted("constant W", every("0.W", lambda w: w.fill_(0.1)), ("attention_0", "attentions.0")),
            Planted("output x 30", scaled("out_att.W", 30), ("out_att",)),
        ),
        classes=4,
    ),
    Specimen(
        "deep_sets",
        deep_sets,
        (
            Planted("weights x 0.01", every(".weight", lambda w: w.mul_(0.01)), ("phi", "rho")),
            Planted("biases of -30", filled("phi.2.bias", -30), ("phi.2", "phi.3")),
            Planted("constant weights", both(constant("phi.", 0.1), constant("rho.", 0.1)), ("phi", "rho")),
        ),
        classes=4,
    ),
    Specimen(
        "pointnet",
        pointnet,
        (
            Planted("shift of -5 before a ReLU", filled("bn2.bias", -5), ("bn2",)),
            Planted(
                "two factors of 0", both(filled("bn3.weight", 0), filled("fc1.weight", 0)), ("bn3", "fc1")
            ),
            Planted(
                "constant weights", both(constant("conv1.", 0.1), constant("conv2.", 0.1)), ("conv1", "conv2")
            ),
        ),
        classes=4,
    ),
    Specimen(
        "siamese",
        siamese,
        (
            Planted("weights x 10", scaled("cnn1.3.weight", 10), ("cnn1.3",)),
            Planted("biases of -30", filled("fc1.0.bias", -30), ("fc1.0",)),
            Planted(
                "constant weights", both(constant("cnn1.", 0.05), constant("fc1.0", 0.05)), ("cnn1", "fc1.0")
            ),
        ),
    ),
    Specimen(
        "deepfm",
        deepfm,
        (
            Planted("embedding x 30", scaled("embedding.weight", 30), ("embedding",)),
            Planted("shift of -5 before a ReLU", filled("mlp.5.bias", -5), ("mlp.5",)),
            Planted("two factors of 0", both(filled("mlp.5.weight", 0), filled("mlp.8.weight", 0)), ("mlp",)),
        ),
    ),
)
