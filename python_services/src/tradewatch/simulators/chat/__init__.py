"""A simulated chat: takes notifications as generic webhooks and as Slack does, and shows what it got."""
