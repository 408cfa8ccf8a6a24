"""Video: frames at given times from real files, tubelets, targets; and VideoMAE, weight by weight."""

from fractions import Fraction
from pathlib import Path

import av
import hydra
import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from transformers import VideoMAEConfig, VideoMAEForPreTraining

from tests.conftest import ROOT
from unmask.backbone import Backbone
from unmask.build.create import build_encoder, create
from unmask.data.digits import Digits
from unmask.data.moving_digits import FRAMES, MOTIONS, MovingDigits, draw
from unmask.data.video import VideoFile, VideoFolder
from unmask.errors import BrokenSample, ConfigError
from unmask.masking.axes import AxisMask
from unmask.masking.random import RandomMask
from unmask.modality.video import Video
from unmask.nn.encoder import Encoder
from unmask.nn.patch import tubelets, untubelets
from unmask.nn.position import sincos_3d, sincos_interleaved
from unmask.objective.mae import MAE
from unmask.schema import Batch, Sample
from unmask.training.groups import parameter_groups

SHADE = 4  # frame k of a test video has about this times k everywhere


def write(path: Path, times: list[int], codec: str = "libx264", gop: int = 12) -> Path:
    """48 x 32 pixels; frame k, shown from `times[k]` tenths of a second on, is grey of shade 20 + 4 k."""
    size, rate = (48, 32), 10
    with av.open(str(path), "w") as container:
        # Open groups of pictures and frames that refer forward; in AVI, which has no times, those would shift by one.
        options = {"g": str(gop), "bf": "0" if path.suffix == ".avi" else "2", "x264-params": "open-gop=1"}
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.bit_rate = 4_000_000
        stream.time_base = stream.codec_context.time_base = Fraction(1, rate)
        for k, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((size[1], size[0], 3), SHADE * k + 20, np.uint8), format="rgb24")
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbers(video: VideoFile, times: list[float]) -> list[int]:
    """Which frames are shown."""
    frames = video.frames(times).float()
    assert frames.std((1, 2, 3)).max() < 3
    return ((frames.mean((1, 2, 3)) - 20) / SHADE).round().int().tolist()


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("webm", "libvpx"), ("avi", "mpeg4")]
)
@pytest.mark.parametrize("start", [0.0, 1.4, 3.3])
def test_frames_are_those_shown_at_the_times(tmp_path: Path, suffix: str, codec: str, start: float):
    path = write(tmp_path / f"a.{suffix}", list(range(50)), codec)
    video = VideoFile(path)
    assert video.seconds == pytest.approx(5.0, abs=0.11)
    times = [start + 0.25 * i for i in range(6)]
    assert numbers(video, times) == [int(10 * t + 1e-6) for t in times]


def test_a_video_can_be_read_twice_and_from_any_time(tmp_path: Path):
    for codec in ("libx264", "mpeg4"):  # seeks in files with B-frames may lead behind what is wanted
        video = VideoFile(write(tmp_path / f"{codec}.mp4", list(range(50)), codec))
        for start in (0.0, 3.3, 0.0, 1.7, 4.8, *(0.1 * i for i in range(0, 48, 3))):
            times = [start, start + 0.1]
            assert numbers(video, times) == [int(10 * t + 1e-6) for t in times]
        video.close()


def test_frames_of_varying_length_stay_until_the_next(tmp_path: Path):
    video = VideoFile(write(tmp_path / "a.mp4", [0, 1, 2, 10, 11, 20]))
    assert numbers(video, [0.0, 0.25, 0.5, 0.95, 1.0, 1.15, 1.9, 2.0]) == [0, 2, 2, 2, 3, 4, 4, 5]


def test_a_short_video_goes_on_with_its_last_frame(tmp_path: Path):
    assert numbers(VideoFile(write(tmp_path / "a.mp4", [0, 1, 2])), [0.0, 0.1, 0.2, 0.3, 5.0]) == [0, 1, 2, 2, 2]
    assert numbers(VideoFile(write(tmp_path / "b.mp4", [0])), [0.0, 0.5]) == [0, 0]


def test_odd_sizes_and_portraits_are_decoded(tmp_path: Path):
    path = tmp_path / "a.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 31, 47, "bgr0"
        pixels = np.arange(31 * 47 * 3, dtype=np.uint8).reshape(47, 31, 3)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    frames = VideoFile(path).frames([0.0])
    assert np.array_equal(frames[0].permute(1, 2, 0).numpy(), pixels)


def test_broken_files_say_what_is_wrong(tmp_path: Path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video at all " * 100)
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for name, words in (
        ("missing.mp4", "no such file"),
        ("empty.mp4", ""),
        ("text.mp4", ""),
        ("sound.mp4", "no video"),
    ):
        with pytest.raises(BrokenSample, match=rf"{name}: .*{words}"):
            VideoFile(tmp_path / name)
    whole = write(tmp_path / "whole.mkv", list(range(50))).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    assert len(VideoFile(tmp_path / "cut.mkv").frames([0.0, 4.9])) == 2  # what is there goes on
    ruined = bytearray(write(tmp_path / "b.mp4", list(range(50)), gop=50).read_bytes())
    start = ruined.index(b"mdat") + 4
    ruined[start : start + 300] = b"\xff" * 300
    (tmp_path / "ruined.mp4").write_bytes(ruined)
    with pytest.raises(BrokenSample, match=r"ruined\.mp4"):
        VideoFile(tmp_path / "ruined.mp4").frames([0.0, 0.1])


def test_a_folder_and_a_list_give_videos_and_labels(tmp_path: Path):
    for split, count in (("train", 3), ("val", 2)):
        for name in ("jump", "run"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(count):
                write(tmp_path / split / name / f"{i}.mp4", [0, 1])
    folder = VideoFolder(tmp_path, "train")
    assert (len(folder), folder.classes) == (6, ("jump", "run"))
    assert [folder[i].label for i in range(6)] == [0, 0, 0, 1, 1, 1]
    listed = tmp_path / "list.csv"
    listed.write_text(
        "path,label,split\ntrain/run/0.mp4,run,train\nval/jump/1.mp4,jump,test\ntrain/jump/0.mp4,jump,train\n"
    )
    for split, labels in (("train", [1, 0]), ("test", [0])):
        source = VideoFolder(listed, split)
        assert [source[i].label for i in range(len(source))] == labels
        assert source[0].value.frames([0.0]).shape == (1, 3, 32, 48)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label\na.mp4,run\n", "columns file, label"),
        ("path,label\na.mp4,\n", "column in line 2"),
        ("path,label\nnone.mp4,run\n", "names none.mp4 in line 2, which is no file"),
        ("path,split\na.mp4,val\n", "the split val in line 2"),
        ("path,split\na.mp4,test\n", "lists nothing to train on"),
    ],
)
def test_a_list_that_cannot_be_used_says_why(tmp_path: Path, text: str, words: str):
    write(tmp_path / "a.mp4", [0])
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        VideoFolder(tmp_path / "list.csv")


def test_moving_digits_are_the_drawn_clips_through_a_file(tmp_path: Path):
    source = MovingDigits(tmp_path, "test", test_clips=16)
    assert len(source) == 16
    digits = Digits("test")
    for i in range(16):
        sample = source[i]
        assert source.classes[sample.label] == MOTIONS[i % 8]
        drawn = draw(digits, "test", i, MOTIONS[i % 8]).float()
        decoded = sample.value.frames([k / 10 for k in range(FRAMES)]).float().mean(1)
        assert (decoded - drawn).abs().mean() < 2
    assert MovingDigits(tmp_path, "test", test_clips=16)._root == source._root  # not written again


def test_motions_do_what_their_names_say():
    digits, x, y = Digits("train"), torch.arange(32.0), torch.arange(32.0)
    for motion, axis, sign in (("right", 0, 1), ("left", 0, -1), ("down", 1, 1), ("up", 1, -1)):
        clip = draw(digits, "train", 3, motion).float()
        centre = [(clip.sum(1) * x).sum(1) / clip.sum((1, 2)), (clip.sum(2) * y).sum(1) / clip.sum((1, 2))]
        assert (centre[axis].diff() * sign > 0).all()
        assert (centre[1 - axis].diff().abs() < 0.1).all()
    for motion, sign in (("growing", 1), ("shrinking", -1)):
        mass = draw(digits, "train", 3, motion).float().sum((1, 2))
        assert (mass.diff() * sign > 0).all()
    turned = [draw(digits, "train", 3, motion) for motion in ("clockwise", "anticlockwise")]
    assert torch.allclose(turned[0].flip(0).float(), turned[1].float(), atol=1)


def test_tubelets_are_patches_through_neighbouring_frames():
    video = torch.randn(2, 4, 3, 6, 8)
    patches = tubelets(video, 2, 2)
    assert patches.shape == (2, 2 * 3 * 4, 2 * 2 * 2 * 3)
    for token, (t, row, column) in ((0, (0, 0, 0)), (6, (0, 1, 2)), (23, (1, 2, 3))):
        block = video[1, 2 * t : 2 * t + 2, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert torch.equal(patches[1, token], block.permute(0, 2, 3, 1).flatten())
    assert torch.equal(untubelets(patches, 2, 2, (2, 3, 4)), video)


def test_position_tables():
    golden = [0.841471, 0.540302, 0.099833, 0.995004, 0.01, 0.99995, 0.001, 1.0]
    assert sincos_interleaved(8, 3)[1].tolist() == pytest.approx(golden, abs=1e-6)
    table = sincos_3d(16, (2, 3, 4)).view(2, 3, 4, 16)
    for t, y, x in ((1, 2, 3), (0, 1, 2)):
        expected = torch.tensor([
            np.sin(t), np.sin(t / 100), np.cos(t), np.cos(t / 100),
            *[f(a * 10_000 ** (-i / 3)) for a in (x, y) for f in (np.sin, np.cos) for i in range(3)],
        ])  # fmt: skip
        assert torch.allclose(table[t, y, x], expected.float(), atol=1e-6)


def make_video(**settings) -> Video:
    arguments = {
        "width": 32, "frames": 8, "fps": 5.0, "image_size": 16, "patch_size": 8, "tubelet": 2, "channels": 3,
        "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3],
    }  # fmt: skip
    return Video(**{**arguments, **settings})


def make_clips(count: int = 2, frames: int = 8, side: int = 16) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, frames, 3, side, side), generator=generator, dtype=torch.uint8)
    return Batch(pixels, torch.arange(count))


def test_mae_sts_predicted_frames_end_with_the_last():
    assert make_video(frames=16, target_frames=8).predicted == [0, 2, 4, 6, 8, 10, 12, 15]


def test_of_predicted_frames_one_a_tubelet_is_the_target():
    video, batch = make_video(target_frames=4), make_clips()
    mask = RandomMask(0.5).draw(0, batch.positions, video.grid)
    target = video.target(batch, mask, normalize=False)
    assert target.shape[-1] == video.target_size == 8 * 8 * 3
    frames = batch.inputs[:, [0, 2, 4, 7]].float() / 255
    for row in range(2):
        for slot, token in enumerate(mask.hidden[row].tolist()):
            t, y, x = token // 4, token // 2 % 2, token % 2
            patch = frames[row, t, :, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8].permute(1, 2, 0)
            expected = (patch - torch.tensor([0.4, 0.5, 0.6])) / torch.tensor([0.2, 0.25, 0.3])
            assert torch.allclose(target[row, slot], expected.flatten(), atol=1e-6)


@pytest.mark.parametrize("norm", ["patch", "channel"])
@pytest.mark.parametrize("target_frames", [None, 4])
def test_a_perfect_prediction_shows_the_input(norm: str, target_frames: int | None):
    video, batch = make_video(target_norm=norm, target_frames=target_frames), make_clips()
    mask = AxisMask(0.5, [[1, 2]]).draw(0, batch.positions, video.grid)
    for normalized in (True, False):
        prediction = video.target(batch, mask, normalized)
        (input_, seen, filled), _ = video.views(batch, mask, prediction, normalized)
        assert torch.equal(input_, batch.inputs[:, video.predicted])
        assert (filled.int() - input_.int()).abs().max() <= 1
        assert (seen != input_).any()
        assert video.picture(batch, mask, prediction, normalized).ndim == 3


def test_the_middle_of_a_clip_is_looked_at_and_any_part_trained_on(tmp_path: Path):
    video = make_video(image_size=32, crop_scale=0.9)
    source = write(tmp_path / "a.mp4", list(range(50)))

    def seen(train: bool) -> list[int]:
        transform = video.transform(train)
        sample = transform.read(Sample(VideoFile(source), None))
        value = transform(sample)
        assert value.shape == (8, 3, 32, 32)
        return ((value.float().mean((1, 2, 3)) - 20) / SHADE).round().int().tolist()

    assert seen(train=False) == [17 + 2 * i for i in range(8)]
    torch.manual_seed(0)
    starts = {seen(train=True)[0] for _ in range(8)}
    assert len(starts) > 3
    assert all(0 <= start <= 34 for start in starts)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tubelet": 3}, "modality.tubelet=3 does not divide data.frames=8"),
        ({"target_frames": 3}, "modality.target_frames=3 does not give each of the 4 tokens along time as many"),
        ({"positions": "seperable"}, "Did you mean separable"),
        ({"positions": "sincoz"}, "Did you mean sincos"),
        ({"mean": [0.5]}, "data.mean has 1"),
        ({"width": 24}, "Choose a multiple of 16"),
    ],
)
def test_what_cannot_be_built_says_what_to_change(settings: dict, words: str):
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        make_video(**settings)


# Parity with VideoMAE: every weight randomised and copied across, tube masks, loss and gradients.


def make_peer() -> VideoMAEForPreTraining:
    config = VideoMAEConfig(
        image_size=32, patch_size=8, num_frames=8, tubelet_size=2, hidden_size=48, num_hidden_layers=3,
        num_attention_heads=4, intermediate_size=192, decoder_hidden_size=32, decoder_num_hidden_layers=2,
        decoder_num_attention_heads=4, decoder_intermediate_size=128, use_mean_pooling=False, layer_norm_eps=1e-6,
        attn_implementation="eager",
    )  # fmt: skip
    peer, generator = VideoMAEForPreTraining(config), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return peer


def pairs(ours: MAE, peer: VideoMAEForPreTraining, read) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """(name, ours, theirs) for every parameter, in our layout; `read` picks the value or the gradient."""
    rows = []

    def add(name: str, mine: torch.nn.Parameter, theirs: torch.Tensor) -> None:
        rows.append((name, read(mine), theirs))

    def add_both(name: str, mine: torch.nn.Module, theirs: torch.nn.Module) -> None:
        add(f"{name}.weight", mine.weight, read(theirs.weight))
        add(f"{name}.bias", mine.bias, read(theirs.bias))

    conv = peer.videomae.embeddings.patch_embeddings.projection
    projection = ours.backbone.modality.projection
    # Theirs is a convolution [D, C, t, p, p]; ours multiplies tubelets in the order time, row, column, channel.
    add("projection.weight", projection.weight, read(conv.weight).permute(0, 2, 3, 4, 1).flatten(1))
    add("projection.bias", projection.bias, read(conv.bias))
    add_both("norm", ours.backbone.encoder.norm, peer.videomae.layernorm)
    add("mask_token", ours.decoder.mask_token, read(peer.mask_token))
    add("decoder.embed.weight", ours.decoder.embed.weight, read(peer.encoder_to_decoder.weight))
    add_both("decoder.norm", ours.decoder.norm, peer.decoder.norm)
    add_both("decoder.predict", ours.decoder.predict, peer.decoder.head)
    for stack, blocks, layers in (
        ("encoder", ours.backbone.encoder.blocks, peer.videomae.encoder.layer),
        ("decoder", ours.decoder.blocks, peer.decoder.decoder_layers),
    ):
        for i, (block, layer) in enumerate(zip(blocks, layers, strict=True)):
            attention = layer.attention.attention
            projections = (attention.query, attention.key, attention.value)
            add(f"{stack}.{i}.qkv.weight", block.attn.qkv.weight, torch.cat([read(p.weight) for p in projections]))
            # Keys have no bias there: the softmax would not see it, so ours stays where it is, at zero.
            no_bias = torch.zeros_like(read(attention.query.bias))
            biases = [read(attention.query.bias), no_bias, read(attention.value.bias)]
            add(f"{stack}.{i}.qkv.bias", block.attn.qkv.bias, torch.cat(biases))
            for name, mine, theirs in (
                ("proj", block.attn.proj, layer.attention.output.dense),
                ("norm1", block.norm1, layer.layernorm_before),
                ("norm2", block.norm2, layer.layernorm_after),
                ("mlp.0", block.mlp[0], layer.intermediate.dense),
                ("mlp.2", block.mlp[2], layer.output.dense),
            ):
                add_both(f"{stack}.{i}.{name}", mine, theirs)
    return rows


def test_loss_and_gradients_equal_videomaes():
    peer = make_peer()
    video = make_video(
        width=48, image_size=32, mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], positions="interleaved",
        target_norm="channel",
    )  # fmt: skip
    ours = MAE(Backbone(video, Encoder(48, 3, 4), class_token=False), 32, 2, 4, normalize=True)
    with torch.no_grad():
        ours.decoder.embed.bias.zero_()
        for _, mine, theirs in pairs(ours, peer, lambda parameter: parameter):
            mine.copy_(theirs)
    batch = make_clips(side=32)
    mask = AxisMask(0.75, [[1, 2]]).draw(0, batch.positions, video.grid)
    loss = ours(batch, mask).loss
    loss.backward()
    pixels = (batch.inputs.float() / 255 - video.pixel_mean) / video.pixel_std
    expected = peer(pixels, bool_masked_pos=mask.is_hidden(4 * 4 * 4)).loss
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    names = set()
    for name, mine, theirs in pairs(ours, peer, lambda parameter: parameter.grad):
        assert torch.allclose(mine, theirs, atol=1e-5 * max(1.0, theirs.abs().max().item())), name
        names.add(name)
    assert len(names) == len(list(ours.parameters())) - 2  # the class token is empty, their embedding has no bias


@pytest.mark.parametrize(
    ("size", "decoder", "positions", "encoder_count", "all_count"),
    [
        ((768, 12, 12), (384, 4, 6), "interleaved", 86_227_200, 94_210_944),
        ((1024, 24, 16), (512, 12, 8), "interleaved", 303_860_736, 342_996_992),
    ],
)
def test_parameter_counts_of_videomae(size, decoder, positions, encoder_count: int, all_count: int):
    with torch.device("meta"):
        video = make_video(
            width=size[0], frames=16, image_size=224, patch_size=16, positions=positions, target_norm="channel"
        )
        mae = MAE(Backbone(video, Encoder(*size), class_token=False), *decoder, normalize=True)
    assert video.grid == (8, 14, 14)
    count = sum(p.numel() for p in mae.parameters())
    # There keys have no bias, and the map into the decoder has none.
    keys = size[0] * size[1]
    assert sum(p.numel() for p in mae.backbone.parameters()) - keys == encoder_count
    assert count - keys - decoder[0] * decoder[1] - decoder[0] == all_count


# mae_st: positions learned for space and time apart, and a class token of the decoder's own.


@pytest.mark.parametrize(
    ("name", "encoder", "decoder"),
    [
        ("mae_video_base", 86_394_624, 13_504_256),
        ("mae_video_large", 304_096_256, 13_635_328),
        ("mae_video_huge", 631_911_680, 13_766_400),
    ],
)
def test_parameter_counts_of_mae_sts_recipes(name: str, encoder: int, decoder: int):
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = hydra.compose("train", [f"experiment={name}", "data.root=here"])
    with torch.device("meta"):
        mae = create(cfg.objective, backbone=Backbone(create(cfg.modality), build_encoder(cfg), cfg.model.class_token))
    assert sum(p.numel() for p in mae.backbone.parameters()) == encoder
    assert sum(p.numel() for p in mae.decoder.parameters()) == decoder


def make_separable(class_token: bool = True, **settings) -> MAE:
    torch.manual_seed(0)
    backbone = Backbone(make_video(positions="separable", **settings), Encoder(32, 2, 4), class_token)
    return MAE(backbone, 16, 2, 4, normalize=True, decoder_class_token=class_token)


def test_separable_positions_are_the_sum_of_time_and_space():
    mae, batch = make_separable(), make_clips()
    for position, width in ((mae.backbone.modality.positions, 32), (mae.decoder.position, 16)):
        table = position().view(4, 2, 2, width)
        for t, y, x in ((0, 0, 0), (3, 0, 1), (2, 1, 0)):
            expected = position.time_position[0, t] + position.space_position[0, 2 * y + x]
            assert torch.equal(table[t, y, x], expected)
    backbone, mask = mae.backbone, RandomMask(0.5).draw(0, batch.positions, (4, 2, 2))
    tokens, _ = backbone.prepare(batch, mask)
    plain = backbone.modality.embed(batch) + backbone.modality.table
    expected = torch.stack([row[index] for row, index in zip(plain, mask.visible, strict=True)])
    torch.testing.assert_close(tokens[:, 1:], expected)
    torch.testing.assert_close(tokens[0, 0], (backbone.class_token + backbone.class_position)[0, 0])
    mae(batch, mask).loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in mae.parameters())


def test_the_decoder_looks_at_its_own_class_token_alone():
    mae, batch = make_separable(), make_clips()
    mask = RandomMask(0.5).draw(0, batch.positions, (4, 2, 2))
    latent = mae.backbone.encode(batch, mask)
    other = latent.clone()
    other[:, 0] += 1
    assert torch.equal(mae.decoder(latent, mask), mae.decoder(other, mask))
    before = mae.decoder(latent, mask)
    with torch.no_grad():
        mae.decoder.class_token[..., 0] += 5  # not all of it: a norm would not see that
    assert not torch.allclose(mae.decoder(latent, mask), before)


def test_separable_positions_need_no_class_token_and_a_decoders_own_does():
    mae, batch = make_separable(class_token=False), make_clips()
    assert mae(batch, RandomMask(0.5).draw(0, batch.positions, (4, 2, 2))).loss.isfinite()
    assert not any("class_position" in name for name, _ in mae.named_parameters())
    with pytest.raises(ConfigError, match=r"decoder_class_token=true: with model\.class_token=false"):
        MAE(mae.backbone, 16, 2, 4, normalize=True, decoder_class_token=True)


def test_separable_positions_are_interpolated_for_other_clips_and_stay_so_when_saved(tmp_path: Path):
    backbone = make_separable().backbone.eval()
    backbone.save(tmp_path / "a")
    old = backbone.modality.positions
    large = Backbone.load(tmp_path / "a", {"frames": 16, "image_size": [32, 16]})
    assert large.modality.grid == (8, 4, 2)
    new = large.modality.positions
    time = torch.nn.functional.interpolate(old.time_position.transpose(1, 2), 8, mode="linear").transpose(1, 2)
    torch.testing.assert_close(new.time_position, time)
    space = old.space_position.transpose(1, 2).view(1, 32, 2, 2)
    space = torch.nn.functional.interpolate(space, (4, 2), mode="bicubic", align_corners=False)
    torch.testing.assert_close(new.space_position, space.flatten(2).transpose(1, 2))
    assert torch.equal(large.class_position, backbone.class_position)
    large.save(tmp_path / "b")
    torch.testing.assert_close(Backbone.load(tmp_path / "b").modality.table, large.modality.table)
    back = Backbone.load(tmp_path / "b", {"frames": 8, "image_size": 16})  # from the grid of the file, not the first
    time = torch.nn.functional.interpolate(time.transpose(1, 2), 4, mode="linear").transpose(1, 2)
    torch.testing.assert_close(back.modality.positions.time_position, time)
    same, batch = Backbone.load(tmp_path / "a", {"frames": 8, "image_size": 16}), make_clips()
    assert torch.equal(same.eval().features(batch), backbone.features(batch))


def test_separable_positions_learn_as_the_embedding_does_and_without_decay_where_told_so():
    mae = make_separable()
    names = {id(p): name for name, p in mae.named_parameters()}
    groups = parameter_groups(mae, 0.05, layer_decay=0.5, depth=2, decay_tokens=False)
    found = {names[id(p)]: (g["weight_decay"], g["lr_scale"]) for g in groups for p in g["params"]}
    for name in ("class_position", "modality.positions.time_position", "modality.positions.space_position"):
        assert found[f"backbone.{name}"] == (0.0, 0.125)
