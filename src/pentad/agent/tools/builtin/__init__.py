"""The five tools of Toolformer: calculator, question answering, search, translation, calendar."""
