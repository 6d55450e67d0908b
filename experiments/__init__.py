"""ppvae.experiments"""
