"""What happens to a dictionary when its model changes: audits, matching, and the policy that follows."""
