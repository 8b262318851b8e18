"""The hinge loss of BigGAN (Brock et al. 2019, arXiv:1809.11096; Lim and Ye 2017, arXiv:1705.02894)."""
import torch
import torch.nn.functional as F

from torch_utils import training_stats

from ..loss import AdversarialLoss, ImageTransform, Part, Step, accumulate, phase_name, report_logits


class HingeLoss(AdversarialLoss):
    """G minimises mean -D(G(z), c); D minimises mean max(0, 1 - D(x, c)) + mean max(0, 1 + D(G(z), c)).

    There is no regularisation: the networks are spectrally normalised. Every pass is in the networks' own mode, so in
    training the generator's batch statistics and all singular vectors are updated in the phases of D too, as in the
    paper.

    Args:
        device: where the networks are.
        G: generator that is called with latents and labels.
        D: discriminator.
        augment_pipe: applied to every image, real or generated, that D sees; None applies nothing.
        g_terms: terms of the generator's loss, as objects or as dictionaries with a class_name.
    """

    def accumulate_gradients(self, network: str, part: Part, step: Step) -> None:
        """As in the base class; the phases are those of G and D with both parts.

        Raises:
            ValueError: another phase.
        """
        if network not in ("G", "D") or part is not Part.BOTH:
            raise ValueError(f"unknown training phase {phase_name(network, part)!r}")
        if network == "G":
            self.g_main(step)
        else:
            self.d_step(self.D, part, step, self.augment)

    def generate(self, z: torch.Tensor, c: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Images [N, C, H, W]; there are no styles, so the ws are empty, [N, 0, 0]."""
        return self.G(z, c), z.new_empty([len(z), 0, 0])

    @staticmethod
    def g_loss(logits: torch.Tensor) -> torch.Tensor:
        """Per-sample generator loss for discriminator logits, both [N, 1]: -logits."""
        return -logits

    def d_step(self, D: torch.nn.Module, part: Part, step: Step, augment: ImageTransform, prefix: str = "") -> None:
        """As in the base class: generated and real images in one pass. Regularisation alone computes nothing."""
        if not part.has_main:
            return
        with torch.no_grad():
            fake_img, _ = self.generate(step.gen_z, step.gen_c)
        img, c = torch.cat([fake_img, step.real_img]), torch.cat([step.gen_c, step.real_c])
        fake, real = D(augment(img), c).split([len(fake_img), len(step.real_img)])
        report_logits("fake", fake, prefix)
        report_logits("real", real, prefix)
        loss_fake, loss_real = F.relu(1 + fake), F.relu(1 - real)
        training_stats.report(f"Loss/{prefix}D/loss", loss_fake.detach() + loss_real.detach())
        accumulate(loss_fake.mean() + loss_real.mean(), step.gain)
