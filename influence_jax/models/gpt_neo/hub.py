"""The folder of a checkpoint: one on this machine, or fetched from the Hugging Face hub."""

from pathlib import Path

# No pickles: what is not asked for cannot be loaded.
_PATTERNS = ('config.json', 'model*.safetensors', 'model.safetensors.index.json')


def folder_of(name_or_folder: str | Path) -> Path:
    """The folder itself, or the cached copy of a hub repository such as `EleutherAI/gpt-neo-1.3B`.

    Raises:
        FileNotFoundError: it looks like a path, and there is no such folder.
        OSError: the hub cannot be reached, or has no such repository.
    """
    folder = Path(name_or_folder).expanduser()
    if folder.is_dir():
        return folder
    name = str(name_or_folder)
    if folder.exists() or not _may_be_on_hub(name):
        raise FileNotFoundError(f'{name}: no such folder; give the folder of a checkpoint')
    return _fetched(name)


def _may_be_on_hub(name: str) -> bool:
    return name.count('/') <= 1 and not name.startswith(('.', '/', '~')) and not name.endswith('/')


def _fetched(name: str) -> Path:
    import huggingface_hub  # slow to import, and needed for hub names alone

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(_PATTERNS)))
    except Exception as error:  # of many kinds: of HTTP, of the hub, of the file system
        reason = str(error).strip().partition('\n')[0]
        raise OSError(
            f'{name}: no such folder, and it cannot be fetched from the Hugging Face hub '
            f'({type(error).__name__}: {reason}); check the name and the network, or give a folder'
        ) from error
