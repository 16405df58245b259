"""Bridge: what needs both wings, such as auditing a denoiser or denoising a corpus."""
