"""Makes the files beside it with PyTorch, so that parity is tested where PyTorch is absent.

python tests/models/fixtures_gpt_neo/make.py
"""

from pathlib import Path

import numpy as np
import torch
from transformers import GPTNeoConfig, GPTNeoForCausalLM

HERE = Path(__file__).parent


def main() -> None:
    torch.manual_seed(0)
    config = GPTNeoConfig(
        vocab_size=61,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        intermediate_size=40,
        max_position_embeddings=24,
        window_size=4,
        attention_types=[[['global', 'local'], 1]],
        layer_norm_epsilon=1e-3,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = GPTNeoForCausalLM(config).eval()
    with torch.no_grad():  # large enough for every part to count
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    tokens = torch.randint(61, (2, 20))
    lengths = [20, 13]
    answer = {
        'tokens': tokens.numpy().astype(np.int32),
        'lengths': np.array(lengths, np.int32),
        'logits': model(tokens).logits.detach().numpy(),
        'greedy': np.stack([greedy(model, tokens[:, :n]) for n in (5, 9)]),
    }
    loss = sum(
        model(tokens[i : i + 1, :n], labels=tokens[i : i + 1, :n]).loss
        for i, n in enumerate(lengths)
    )
    loss.backward()
    answer['loss'] = loss.detach().numpy()
    for name, parameter in model.named_parameters():
        gradient = parameter.grad.numpy().ravel()
        answer[f'gradient/{name}'] = np.append(gradient[:4], np.linalg.norm(gradient))
    model.save_pretrained(HERE, safe_serialization=True)
    (HERE / 'generation_config.json').unlink(missing_ok=True)
    np.savez_compressed(HERE / 'answers.npz', **answer)


def greedy(model: GPTNeoForCausalLM, prompts: torch.Tensor) -> np.ndarray:
    """Ten new tokens of each prompt."""
    decoded = model.generate(
        prompts, do_sample=False, max_new_tokens=10, attention_mask=torch.ones_like(prompts)
    )
    return decoded[:, prompts.shape[1] :].numpy()


if __name__ == '__main__':
    main()
