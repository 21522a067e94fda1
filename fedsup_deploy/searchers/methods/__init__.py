"""How a search proposes: exhaustively, by evolution, at random; and which of these suits a problem."""
