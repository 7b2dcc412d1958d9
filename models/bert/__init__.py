"""BERT and XLM-RoBERTa: multilingual-e5, Arctic Embed v2 large, all-MiniLM and many more."""
