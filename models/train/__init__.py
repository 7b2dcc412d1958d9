"""How the built-in model is made: a dense teacher becomes a small NomicBert-MoE, in closed form and then by gradient steps."""
